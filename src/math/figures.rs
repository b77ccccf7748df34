//! Numbers as people read them: significant digits, thousands parted, shares and changes in percent.
//!
//! As C's `%g` and Python's format specifications write them. Limit: no locale, so points and commas are English.

/// So many significant digits, as `%g`: no trailing zeros, an exponent only for the very large and the very small.
pub fn digits(x: f64, most: usize) -> String {
    if !x.is_finite() {
        return if x.is_nan() { "nan".to_string() } else { format!("{x}") };
    }
    let most = most.max(1);
    let written = format!("{x:.*e}", most - 1);
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text.to_string() }
    };
    if exponent < -4 || exponent >= most as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs());
    }
    trimmed(&format!("{x:.*}", (most as i32 - 1 - exponent).max(0) as usize))
}

/// So many decimals, thousands parted by commas.
pub fn parted(x: f64, decimals: usize) -> String {
    if !x.is_finite() {
        return digits(x, 1);
    }
    let written = format!("{x:.decimals$}");
    let (sign, rest) = written.strip_prefix('-').map_or(("", written.as_str()), |rest| ("-", rest));
    let (whole, fraction) = rest.split_once('.').map_or((rest, None), |(w, f)| (w, Some(f)));
    let mut out = String::from(sign);
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) && c.is_ascii_digit() {
            out.push(',');
        }
        out.push(c);
    }
    fraction.map_or(out.clone(), |f| format!("{out}.{f}"))
}

/// So many significant digits, thousands parted where there is no exponent.
pub fn parted_digits(x: f64, most: usize) -> String {
    let text = digits(x, most);
    if text.contains('e') || !x.is_finite() {
        text
    } else {
        parted(x, text.split_once('.').map_or(0, |(_, f)| f.len()))
    }
}

/// A figure in three digits, from a thousand on as a whole number.
pub fn figure(x: f64) -> String {
    if x.abs() >= 1000.0 { parted(x, 0) } else { digits(x, 3) }
}

/// A share in whole percent.
pub(crate) fn percent(share: f64) -> String {
    if share.is_nan() { "nan%".to_string() } else { format!("{:.0}%", share * 100.0) }
}

/// How far a ratio lies from one, in whole percent with its sign.
pub fn change(ratio: f64) -> String {
    let text = percent(ratio - 1.0);
    let text = if text.starts_with('-') { text } else { format!("+{text}") };
    text.replace("-0%", "+0%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_as_people_read_them() {
        let g =
            [(0.0123, "0.0123"), (12.34, "12.3"), (1423.0, "1.42e+03"), (1e-5, "1e-05"), (100.0, "100"), (0.0, "0")];
        for (x, text) in g {
            assert_eq!(digits(x, 3), text);
        }
        assert_eq!([digits(9.9996, 4), digits(123_456.0, 4), digits(f64::NAN, 4)], ["10", "1.235e+05", "nan"]);
        assert_eq!([parted(1_234_567.5, 0), parted(-999.0, 0), parted(1234.5, 1)], ["1,234,568", "-999", "1,234.5"]);
        assert_eq!(
            [parted_digits(1234.0, 4), parted_digits(0.5, 4), parted_digits(12_345.0, 4)],
            ["1,234", "0.5", "1.234e+04"]
        );
        assert_eq!([figure(1000.4), figure(999.5), percent(0.125)], ["1,000", "1e+03", "12%"]);
        assert_eq!([change(1.2), change(0.8), change(0.999), change(1.0)], ["+20%", "-20%", "+0%", "+0%"]);
    }
}
