//! Amounts of a resource, such as `100m` of CPU or `1536Mi` of memory (upstream's `resource.Quantity`).
//!
//! A quantity is a whole number of billionths and remembers how it was written, so that it is printed the
//! same way: in the canonical form, with the largest suffix that needs no fraction.

use std::{
    cmp::Ordering,
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Neg, Sub, SubAssign},
    str::FromStr,
};

use serde_json::Value;

const NANO: i128 = 1_000_000_000;
/// The largest amount, 2^63-1; more is cut down to it.
const LIMIT: i128 = i64::MAX as i128 * NANO;

const DECIMAL_SUFFIXES: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_SUFFIXES: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// An exact amount between 10^-9 and 2^63-1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `100m`, `2`, `5k`.
    #[default]
    DecimalSi,
    /// `5e3`.
    DecimalExponent,
    /// `5Ki`.
    BinarySi,
}

/// Why a text is no quantity; upstream's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// A number with an unknown suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// What `text` says. More than nine decimal places are rounded up, away from zero.
    pub fn parse(text: &str) -> Result<Quantity, ParseError> {
        let (is_negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_length =
            unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_length);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseError::Format);
        }
        let (format, scale) = read_suffix(suffix)?;
        let nanos = nanos(whole, fraction, scale);
        // A binary fraction of one has no binary suffix to be written with.
        let is_fraction = format == Format::BinarySi && 0 < nanos && nanos < NANO;
        let format = if is_fraction { Format::DecimalSi } else { format };
        Ok(Quantity { nanos: if is_negative { -nanos } else { nanos }, format })
    }

    /// What a JSON string or number says.
    pub fn from_json(value: &Value) -> Result<Quantity, ParseError> {
        match value {
            Value::String(text) => Quantity::parse(text.trim()),
            Value::Number(number) => Quantity::parse(&number.to_string()),
            _ => Err(ParseError::Format),
        }
    }

    /// A whole number of units, written with decimal suffixes.
    pub fn from_value(value: i64) -> Quantity {
        Quantity { nanos: i128::from(value) * NANO, format: Format::DecimalSi }
    }

    /// A number of thousandths (of CPU, as a rule).
    pub fn from_milli(milli: i64) -> Quantity {
        Quantity { nanos: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// A number of bytes, written with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Quantity {
        Quantity { nanos: i128::from(bytes) * NANO, format: Format::BinarySi }
    }

    /// The amount in whole units, rounded up (away from zero).
    pub fn value(self) -> i64 {
        saturated(divided_away_from_zero(self.nanos, NANO))
    }

    /// The amount in thousandths, rounded up (away from zero).
    pub fn milli(self) -> i64 {
        saturated(divided_away_from_zero(self.nanos, NANO / 1000))
    }

    /// The amount as a floating point number, for ratios.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// Whether there is no fraction.
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// Whether it is exactly nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn signum(self) -> i32 {
        self.nanos.signum() as i32
    }

    /// How it is written.
    pub fn format(self) -> Format {
        self.format
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Quantity, ParseError> {
        Quantity::parse(text)
    }
}

/// The canonical form: no fraction, and the largest suffix with which that is possible.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.nanos / NANO;
        let is_whole = self.nanos % NANO == 0;
        match self.format {
            _ if self.nanos == 0 => f.write_str("0"),
            Format::BinarySi if is_whole && units.abs() >= 1024 => {
                let fits = |(_, bits): &&(&str, u32)| units % (1i128 << bits) == 0;
                match BINARY_SUFFIXES.iter().rev().find(fits) {
                    Some((suffix, bits)) => write!(f, "{}{suffix}", units >> bits),
                    None => write!(f, "{units}"),
                }
            }
            Format::DecimalExponent => {
                let (mantissa, exponent) = self.decimal();
                if exponent == 0 { write!(f, "{mantissa}") } else { write!(f, "{mantissa}e{exponent}") }
            }
            Format::BinarySi if is_whole => write!(f, "{units}"),
            Format::BinarySi | Format::DecimalSi => {
                let (mantissa, exponent) = self.decimal();
                let suffix = DECIMAL_SUFFIXES.iter().find(|(_, power)| *power == exponent);
                write!(f, "{mantissa}{}", suffix.map_or("", |(suffix, _)| suffix))
            }
        }
    }
}

impl Quantity {
    /// Mantissa and exponent, the latter the largest multiple of three for which the former is whole.
    fn decimal(self) -> (i128, i32) {
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while exponent < 18 && mantissa % 1000 == 0 {
            mantissa /= 1000;
            exponent += 3;
        }
        (mantissa, exponent)
    }

    fn with_nanos(self, other: Quantity, nanos: i128) -> Quantity {
        // Zero has no form of its own: it takes that of what is added to it.
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: nanos.clamp(-LIMIT, LIMIT), format }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        self.with_nanos(other, self.nanos + other.nanos)
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        self.with_nanos(other, self.nanos - other.nanos)
    }
}

impl Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity { nanos: -self.nanos, ..self }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(quantities: I) -> Quantity {
        quantities.fold(Quantity::ZERO, Add::add)
    }
}

/// By what a suffix multiplies.
#[derive(Clone, Copy)]
enum Scale {
    PowerOfTen(i32),
    PowerOfTwo(u32),
}

fn read_suffix(suffix: &str) -> Result<(Format, Scale), ParseError> {
    if let Some((_, power)) = DECIMAL_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::DecimalSi, Scale::PowerOfTen(*power)));
    }
    if let Some((_, bits)) = BINARY_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::BinarySi, Scale::PowerOfTwo(*bits)));
    }
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
        let is_number = exponent.trim_start_matches(['+', '-']).bytes().all(|byte| byte.is_ascii_digit());
        let power = exponent.parse::<i32>().ok().filter(|_| is_number).ok_or(ParseError::Suffix)?;
        return Ok((Format::DecimalExponent, Scale::PowerOfTen(power)));
    }
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let digits = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    let is_well_formed = digits.bytes().all(|byte| byte.is_ascii_digit());
    Err(if is_well_formed { ParseError::Suffix } else { ParseError::Format })
}

/// `whole.fraction` times `scale` in billionths, rounded up and cut to the limit. Works digit by digit, so
/// that a number of any length is read in a bounded amount of memory.
fn nanos(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let digits = || whole.bytes().chain(fraction.bytes()).map(|byte| i128::from(byte - b'0'));
    if digits().all(|digit| digit == 0) {
        return 0;
    }
    let (factor, power) = match scale {
        Scale::PowerOfTen(power) => (1, power),
        Scale::PowerOfTwo(bits) => (1i128 << bits, 0),
    };
    // Where the decimal point is, counted in digits from the left, once the result is in billionths.
    let point = whole.len() as i64 + i64::from(power) + 9;
    let limit = LIMIT / factor + 1;
    let (mut kept, mut is_rounded, mut remainder) = (0i128, false, 0i128);
    let mut divisor = 1i128;
    for (position, digit) in digits().enumerate() {
        if (position as i64) < point {
            kept = kept * 10 + digit;
            if kept > limit {
                return LIMIT;
            }
        } else if factor > 1 && divisor < 10_000_000_000_000_000_000 {
            // The digits behind the billionths still count once they are multiplied by up to 2^60.
            remainder = remainder * 10 + digit;
            divisor *= 10;
        } else {
            is_rounded |= digit != 0;
        }
    }
    let read = (whole.len() + fraction.len()) as i64;
    for _ in read..point {
        kept = kept.saturating_mul(10);
        if kept > limit {
            return LIMIT;
        }
    }
    let whole_nanos = kept.saturating_mul(factor);
    let rest = remainder * factor;
    let rounded = rest / divisor + i128::from(rest % divisor != 0 || is_rounded);
    whole_nanos.saturating_add(rounded).min(LIMIT)
}

fn divided_away_from_zero(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend / divisor;
    if dividend % divisor == 0 { quotient } else { quotient + dividend.signum() }
}

fn saturated(number: i128) -> i64 {
    number.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests;
