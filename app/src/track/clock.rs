//! Time stamps and the host name for file names.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in UTC.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Seconds since the start of 1970, with their fraction.
    pub seconds: f64,
}

#[rustfmt::skip]
const NAMES_OF_MONTHS: [&str; 12] = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
];

impl Moment {
    /// The current time.
    pub fn now() -> Self {
        // A clock that is set before 1970 gives 0. That only affects file names and time axes.
        Self { seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()) }
    }

    /// Year, month (1 to 12), day, hour, minute, second, by Howard Hinnant's `civil_from_days`, for 1970 and later.
    fn civil(self) -> [u64; 6] {
        let seconds = self.seconds as u64;
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let year = year + era * 400 + u64::from(month <= 2);
        [year, month, day, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60]
    }

    /// The time in a format of C's `strftime`, as in "%d %b %Y". `None` if the format has a code other than Y, m, d, b,
    /// B, H, M, S and %.
    pub fn strftime(self, format: &str) -> Option<String> {
        let [year, month, day, hour, minute, second] = self.civil();
        let name = NAMES_OF_MONTHS[month as usize - 1];
        let mut out = String::new();
        let mut rest = format.chars();
        while let Some(c) = rest.next() {
            match if c == '%' { rest.next()? } else { '\0' } {
                '\0' => out.push(c),
                'Y' => out += &year.to_string(),
                'm' => out += &format!("{month:02}"),
                'd' => out += &format!("{day:02}"),
                'b' => out += &name[..3],
                'B' => out += name,
                'H' => out += &format!("{hour:02}"),
                'M' => out += &format!("{minute:02}"),
                'S' => out += &format!("{second:02}"),
                '%' => out.push('%'),
                _ => return None,
            }
        }
        Some(out)
    }

    /// The time in the name of a W&B run folder, such as `20260131_235959`.
    pub fn compact(self) -> String {
        let [year, month, day, hour, minute, second] = self.civil();
        format!("{year}{month:02}{day:02}_{hour:02}{minute:02}{second:02}")
    }

    /// The time in the name of a TensorBoard folder, such as `Jan31_23-59-59`, as HF and PyTorch write it.
    pub fn with_month(self) -> String {
        let [_, month, day, hour, minute, second] = self.civil();
        format!("{}{day:02}_{hour:02}-{minute:02}-{second:02}", &NAMES_OF_MONTHS[month as usize - 1][..3])
    }
}

/// The host name, reduced to characters that are safe in file names: letters, digits, `.`, `_` and `-`.
pub fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    let name: String = name.unwrap_or_default().trim().chars().filter(|c| is_plain(*c)).collect();
    if name.is_empty() { "localhost".into() } else { name }
}

/// Whether `c` is safe in a file name.
pub fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_date_u_prints_them() {
        for (seconds, compact, month) in [
            (0.0, "19700101_000000", "Jan01_00-00-00"),
            (951_868_799.9, "20000229_235959", "Feb29_23-59-59"),
            (951_868_800.0, "20000301_000000", "Mar01_00-00-00"),
            (1_798_761_599.0, "20261231_235959", "Dec31_23-59-59"),
        ] {
            let moment = Moment { seconds };
            assert_eq!((moment.compact().as_str(), moment.with_month().as_str()), (compact, month));
        }
        let leap_day = Moment { seconds: 951_868_799.0 };
        let written = "29 Feb 2000, 2000-02-29 23:59:59, February 100%";
        assert_eq!(leap_day.strftime("%d %b %Y, %Y-%m-%d %H:%M:%S, %B 100%%").as_deref(), Some(written));
        assert_eq!((leap_day.strftime("%Z"), leap_day.strftime("%")), (None, None));
    }
}
