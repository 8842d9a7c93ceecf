//! `Date`, as `IMF-fixdate` (RFC 9110 §5.6.7), computed only from the seconds since 1970: the caller has the clock.

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) type ImfDate = [u8; 29];

/// The date of a moment from 1970 to 9999; later ones give the last second of 9999.
pub(crate) fn imf_date(unix_seconds: u64) -> ImfDate {
    const DAY: u64 = 86_400;
    const END: u64 = 253_402_300_799;
    let seconds = unix_seconds.min(END);
    let (days, second_of_day) = (seconds / DAY, seconds % DAY);
    let (year, month, day) = civil(days);
    // 1970-01-01 was a Thursday.
    let weekday = pick(b"ThuFriSatSunMonTueWed", days % 7);
    let month_name = pick(b"JanFebMarAprMayJunJulAugSepOctNovDec", month);

    let mut date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut put = |at: usize, text: &[u8]| {
        for (slot, byte) in date.iter_mut().skip(at).zip(text) {
            *slot = *byte;
        }
    };
    put(0, weekday);
    put(5, &two_digits(day));
    put(8, month_name);
    put(12, &two_digits(year / 100));
    put(14, &two_digits(year % 100));
    put(17, &two_digits(second_of_day / 3600));
    put(20, &two_digits(second_of_day / 60 % 60));
    put(23, &two_digits(second_of_day % 60));
    date
}

/// Year, month (from 0) and day (from 1) of a day since 1970, in the Gregorian calendar.
///
/// Counts in years that begin in March, so that the leap day is the last of its year: 146,097 days are 400 years.
#[expect(clippy::arithmetic_side_effects)] // Invariant: days < 2,932,897, so nothing overflows or goes below zero.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_0000_03_01 = days + 719_468;
    let (era, day_of_era) = (since_0000_03_01 / 146_097, since_0000_03_01 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    (year, month, day)
}

fn pick(names: &[u8], index: u64) -> &[u8] {
    let index = usize::try_from(index).unwrap_or(0);
    names.chunks_exact(3).nth(index).unwrap_or_default()
}

fn two_digits(number: u64) -> [u8; 2] {
    let digit = |n: u64| b'0'.saturating_add(u8::try_from(n % 10).unwrap_or(0));
    [digit(number / 10), digit(number)]
}

#[cfg(test)]
mod tests {
    use super::imf_date;

    #[track_caller]
    fn check(seconds: u64, date: &str) {
        assert_eq!(std::str::from_utf8(&imf_date(seconds)), Ok(date));
    }

    #[test]
    fn dates() {
        check(0, "Thu, 01 Jan 1970 00:00:00 GMT");
        check(784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT");
        check(951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT");
        check(951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT");
        check(4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT");
        check(1_795_478_399, "Mon, 23 Nov 2026 23:59:59 GMT");
        check(253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT");
        check(u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
