//! How the server's seats are shared out among its levels, and lent from those that are idle to those that are
//! not. Pure.

/// What a level has by its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Its own seats.
    pub(super) nominal: u32,
    /// What it keeps when it lends all that it may.
    pub(super) lower: u32,
    /// What it has when it borrows all that it may.
    pub(super) upper: u32,
}

/// What a level's configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) shares: u32,
    pub(super) lendable_percent: u32,
    /// `None`: as much as there is.
    pub(super) borrowing_percent: Option<u32>,
}

/// What each level has of `total` seats.
pub(super) fn bounds(claims: &[Claim], total: u32) -> Vec<Bounds> {
    let shares: u64 = claims.iter().map(|claim| u64::from(claim.shares)).sum();
    let nominal = |claim: &Claim| match shares {
        0 => 0,
        shares => (u64::from(total) * u64::from(claim.shares)).div_ceil(shares) as u32,
    };
    let all: u32 = claims.iter().map(nominal).sum();
    let of = |claim: &Claim| {
        let nominal = nominal(claim);
        let percent = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        let upper =
            claim.borrowing_percent.map_or(all, |limit| nominal.saturating_add(percent(limit)).min(all));
        Bounds { nominal, lower: nominal - percent(claim.lendable_percent).min(nominal), upper }
    };
    claims.iter().map(of).collect()
}

/// How many seats a level wanted in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Demand {
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) highest: f64,
}

/// What a level is thought to want next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Forecast {
    highest: f64,
    smoothed: f64,
}

impl Forecast {
    /// Rises at once and falls slowly, as upstream's.
    pub(super) fn after(self, demand: Demand) -> Forecast {
        const MEMORY: f64 = 0.977;
        let envelope = (demand.average + demand.deviation).min(demand.highest);
        let smoothed = envelope.max(MEMORY * self.smoothed + (1.0 - MEMORY) * envelope);
        Forecast { highest: demand.highest, smoothed }
    }
}

/// How many seats each level has for the next period: its own while it may want them, what others do not want
/// beyond that.
pub(super) fn lend(levels: &[(Bounds, Forecast)]) -> Vec<u32> {
    let budget: f64 = levels.iter().map(|(bounds, _)| f64::from(bounds.nominal)).sum();
    let least = |(bounds, forecast): &(Bounds, Forecast)| {
        f64::from(bounds.lower).max(forecast.highest.min(f64::from(bounds.nominal)))
    };
    let share = |level: &(Bounds, Forecast), fraction: f64| {
        let least = least(level);
        let target = level.1.smoothed.max(least).max(1.0);
        (target * fraction).clamp(least, f64::from(level.0.upper).max(least))
    };
    let sum = |fraction: f64| levels.iter().map(|level| share(level, fraction)).sum::<f64>();
    let (mut low, mut high) = (0.0, budget.max(1.0));
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if sum(middle) <= budget { low = middle } else { high = middle }
    }
    levels.iter().map(|level| share(level, low).round() as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(shares: u32, lendable_percent: u32, borrowing_percent: Option<u32>) -> Claim {
        Claim { shares, lendable_percent, borrowing_percent }
    }

    fn wants(seats: f64) -> Forecast {
        Forecast::default().after(Demand { average: seats, deviation: 0.0, highest: seats })
    }

    #[test]
    fn seats_follow_shares() {
        let claims = [claim(30, 33, None), claim(40, 25, Some(50)), claim(30, 0, Some(0))];
        assert_eq!(
            bounds(&claims, 600),
            [
                Bounds { nominal: 180, lower: 121, upper: 600 },
                Bounds { nominal: 240, lower: 180, upper: 360 },
                Bounds { nominal: 180, lower: 180, upper: 180 },
            ]
        );
        assert_eq!(bounds(&[claim(0, 0, None)], 600), [Bounds::default()]);
        assert_eq!(bounds(&[claim(1, 0, Some(i32::MAX as u32))], 600)[0].upper, 600);
    }

    #[test]
    fn who_is_idle_lends_and_who_is_busy_borrows() {
        let bounds = bounds(&[claim(50, 50, None), claim(50, 50, None)], 100);
        assert_eq!(lend(&[(bounds[0], wants(0.0)), (bounds[1], wants(200.0))]), [25, 75]);
        assert_eq!(lend(&[(bounds[0], wants(200.0)), (bounds[1], wants(200.0))]), [50, 50]);
        // Who wants its own seats has them, however much others want.
        assert_eq!(lend(&[(bounds[0], wants(40.0)), (bounds[1], wants(1000.0))]), [40, 60]);
    }

    #[test]
    fn nobody_borrows_beyond_the_limit() {
        let bounds = bounds(&[claim(50, 100, None), claim(50, 0, Some(20))], 100);
        assert_eq!(lend(&[(bounds[0], wants(0.0)), (bounds[1], wants(500.0))])[1], 60);
    }

    #[test]
    fn a_forecast_rises_at_once_and_falls_slowly() {
        let risen = wants(100.0);
        assert_eq!(risen.smoothed, 100.0);
        let fallen = risen.after(Demand::default());
        assert!(fallen.smoothed > 97.0 && fallen.smoothed < 98.0);
        assert_eq!(fallen.highest, 0.0);
    }
}
