use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    Quantity::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

#[test]
fn the_canonical_form_has_no_fraction_and_the_largest_suffix() {
    let table = [
        ("0", "0"),
        ("0m", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("1.0", "1"),
        ("1.", "1"),
        (".5", "500m"),
        ("0.5", "500m"),
        ("1500m", "1500m"),
        ("1000m", "1"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1Ki", "1Ki"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.5Mi", "512Ki"),
        ("0.0001Ki", "102400u"),
        ("100k", "100k"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12e2", "1200"),
        ("1e-3", "1e-3"),
        ("1E", "1E"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1.0000000001", "1000000001n"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775807"),
        ("1e400", "9223372036854775807"),
        ("1e-400", "1e-9"),
        ("-5Gi", "-5Gi"),
    ];
    for (text, expected) in table {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_quantity_is_refused() {
    for text in ["", "-", ".", "1.2.3", "a", "1 Gi", " 1", "1.5x", "٣", "1Gi5x", "--1"] {
        assert_eq!(Quantity::parse(text), Err(ParseError::Format), "{text:?}");
    }
    for text in ["1K", "1mi", "1e", "1kk", "1Gi5", "1e+-2"] {
        assert!(Quantity::parse(text).is_err(), "{text:?}");
    }
    assert_eq!(Quantity::parse("1K"), Err(ParseError::Suffix));
}

#[test]
fn a_number_as_long_as_a_book_is_read_in_no_time() {
    assert_eq!(canonical(&"9".repeat(1_000_000)), "9223372036854775807");
    assert_eq!(canonical(&format!("0.{}1", "0".repeat(1_000_000))), "1n");
}

#[test]
fn readings_round_up() {
    let quantity = Quantity::parse("1001n").unwrap();
    assert_eq!((quantity.value(), quantity.milli()), (1, 1));
    assert_eq!(Quantity::parse("1.1").unwrap().value(), 2);
    assert_eq!(Quantity::parse("1500m").unwrap().milli(), 1500);
    assert_eq!(Quantity::parse("-1.1").unwrap().value(), -2);
    assert_eq!(Quantity::parse("1E").unwrap().milli(), i64::MAX);
}

#[test]
fn sums_keep_the_form_of_the_first_that_is_not_zero() {
    let parse = |text| Quantity::parse(text).unwrap();
    assert_eq!((parse("1Gi") + parse("512Mi")).to_string(), "1536Mi");
    assert_eq!((Quantity::ZERO + parse("1Ki")).to_string(), "1Ki");
    assert_eq!((parse("1") - parse("100m")).to_string(), "900m");
    assert_eq!([parse("1Ki"), parse("1Ki")].into_iter().sum::<Quantity>(), parse("2048"));
}

proptest! {
    #[test]
    fn the_canonical_form_means_the_same(text in "[+-]?[0-9]{1,20}(\\.[0-9]{0,12})?(|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]|e-[0-9])") {
        let quantity = Quantity::parse(&text).unwrap();
        let again = Quantity::parse(&quantity.to_string()).unwrap();
        prop_assert_eq!(quantity, again);
        prop_assert_eq!(quantity.to_string(), again.to_string());
        prop_assert!(!quantity.to_string().contains('.'));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,20}") {
        if let Ok(quantity) = Quantity::parse(&text) {
            prop_assert_eq!(Quantity::parse(&quantity.to_string()), Ok(quantity));
        }
    }

    #[test]
    fn arithmetic_is_that_of_numbers(a in -1_000_000_000i64..1_000_000_000, b in -1_000_000_000i64..1_000_000_000) {
        let (x, y) = (Quantity::from_milli(a), Quantity::from_milli(b));
        prop_assert_eq!((x + y).milli(), a + b);
        prop_assert_eq!((x - y).milli(), a - b);
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
    }
}
