//! `--memory-budget`: an amount of memory.

/// Bytes of `12`, `12GiB` or `800MiB`; without a unit, GiB.
pub fn parse(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" | "GiB" | "G" => 1_u64 << 30,
        "MiB" | "M" => 1 << 20,
        "GB" => 1_000_000_000,
        other => return Err(format!("the unit `{other}` is not one of GiB, MiB and GB")),
    };
    let number: f64 = number.parse().map_err(|_| "expected an amount such as 12GiB".to_string())?;
    if number <= 0.0 { Err("the budget must be above 0".into()) } else { Ok((number * unit as f64) as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_in_gib_unless_they_have_a_unit() {
        assert_eq!(parse("12"), Ok(12 << 30));
        assert_eq!([parse("0.5GiB"), parse("512 MiB")], [Ok(512 << 20), Ok(512 << 20)]);
        assert_eq!(parse("24GB"), Ok(24_000_000_000));
        for wrong in ["", "12TB", "GiB", "0", "-3", "1.2.3"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
