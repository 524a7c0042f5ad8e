//! Escaping and formatting of text for the page. Captions come from the web and may be hostile: their text must not
//! become markup, close a script, or change the direction of the text around it.

pub(crate) use disk::foreign_files::visible;

/// Escapes text for an element's content or a quoted attribute.
pub(crate) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Escapes a text of the dataset inside the page's own text, and isolates its direction.
pub(crate) fn bdi(text: &str) -> String {
    format!("<bdi>{}</bdi>", html(text))
}

/// JSON for a `<script type="application/json">`: the same value, without characters that have a meaning in HTML.
pub(crate) fn json(value: &serde_json::Value) -> String {
    let text = value.to_string();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// 1234567 as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun: "1 shard", "2 shards".
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Bytes in decimal units with three significant digits: 61.4 MB.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let mut value = number as f64;
    let mut unit = 0;
    // 999.5 would round to four digits.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 99.95 { 0 } else { usize::from(value < 9.995) + 1 };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A part of a whole in percent.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let share = 100.0 * part as f64 / whole.max(1) as f64;
    match share {
        _ if part == 0 => "0%".to_owned(),
        s if s < 0.01 => "under 0.01%".to_owned(),
        s if s < 1.0 => format!("{s:.2}%"),
        s if s > 99.9 && part < whole => "over 99.9%".to_owned(),
        s if part == whole => format!("{s:.0}%"),
        s => format!("{s:.1}%"),
    }
}

/// The template with every `{{name}}` replaced, in one pass, so that inserted text is never searched for names.
pub(crate) fn fill<'a>(template: &'a str, value: impl Fn(&str) -> Option<&'a str>) -> anyhow::Result<String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, from)) = rest.split_once("{{") {
        let (name, after) = from
            .split_once("}}")
            .ok_or_else(|| anyhow::anyhow!("the page's template has a {{{{ without }}}}"))?;
        filled += before;
        filled +=
            value(name).ok_or_else(|| anyhow::anyhow!("the page's template has an unknown name: {name}"))?;
        rest = after;
    }
    Ok(filled + rest)
}

/// A text cut to this many characters; an ellipsis shows that it was cut.
pub(crate) fn clipped(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_never_become_markup() {
        let hostile = "</script><b title=\"x\" onclick='y'>&amp;\u{202e}\u{0}\n";
        let escaped = html(hostile);
        assert_eq!(
            escaped,
            "&lt;/script&gt;&lt;b title=&quot;x&quot; onclick=&#39;y&#39;&gt;&amp;amp;⟨U+202E⟩⟨U+0000⟩⟨U+000A⟩"
        );
        let value = serde_json::json!({ hostile: [hostile] });
        let text = json(&value);
        assert!(!text.contains(['<', '>', '&']));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn numbers_are_formatted() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.00 kB"),
            (61_388_280, "61.4 MB"),
            (999_999, "1.00 MB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        for (part, whole, text) in [
            (0, 0, "0%"),
            (1, 3, "33.3%"),
            (3, 3, "100%"),
            (1, 1_000_000, "under 0.01%"),
            (9_999, 10_000, "over 99.9%"),
            (1, 200, "0.50%"),
        ] {
            assert_eq!(percent(part, whole), text, "{part}/{whole}");
        }
    }

    #[test]
    fn inserted_text_is_not_searched_for_names() {
        let values = |name: &str| match name {
            "a" => Some("{{b}}"),
            "b" => Some("2"),
            _ => None,
        };
        assert_eq!(fill("<{{a}}|{{b}}>", values).unwrap(), "<{{b}}|2>");
        assert!(fill("{{c}}", values).is_err());
        assert!(fill("{{a", values).is_err());
    }
}
