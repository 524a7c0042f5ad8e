//! Response headers by which owners say that an image must not be used:
//!
//! - `X-Robots-Tag`, a list of directives separated by commas. Directives may be addressed to one crawler (`crawler: noai,
//!   noindex`), and some have a value (`max-snippet: 20`);
//! - `tdm-reservation: 1` of the TDM Reservation Protocol (W3C TDMRep): rights to text and data mining are reserved;
//! - `Content-Usage: train-ai=n` of AIPREF (draft-ietf-aipref-attach): a dictionary of preferences, of which a later one counts.
//!   In `robots.txt` it is one, too.

use reqwest::header::HeaderMap;

use super::failure::Failure;

/// The opt-outs that are known, by the names of the options: directives of `X-Robots-Tag` (those of img2dataset and `noml`), and
/// the other two headers.
pub const OPT_OUTS: [&str; 7] =
    ["noai", "noimageai", "noindex", "noimageindex", "noml", TDM_RESERVATION, TRAIN_AI];

const TDM_RESERVATION: &str = "tdm-reservation";
/// The preference of AIPREF.
pub(super) const TRAIN_AI: &str = "train-ai";

/// Directives with a value: the text before their colon is not the name of a crawler.
const WITH_VALUE: [&str; 4] = ["unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"];

/// The opt-outs in the headers of a response that are addressed to all crawlers or to `robot`, in the order of [`OPT_OUTS`].
pub(super) fn opt_outs(headers: &HeaderMap, robot: Option<&str>) -> Vec<&'static str> {
    // All that counts is ASCII, so replaced bytes cannot be part of it.
    let values = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let robots = values("x-robots-tag");
    let directives: Vec<&str> = robots.iter().flat_map(|value| directives(value, robot)).collect();
    let reserved = values(TDM_RESERVATION).iter().any(|value| value.trim() == "1");
    let usage = values("content-usage").join(",");
    let found = |name: &str| match name {
        TDM_RESERVATION => reserved,
        TRAIN_AI => refuses_training(&usage),
        name => directives.iter().any(|directive| directive.eq_ignore_ascii_case(name)),
    };
    OPT_OUTS.into_iter().filter(|name| found(name)).collect()
}

/// Why an image with these opt-outs is not kept, if those that are obeyed forbid it.
pub(super) fn refusal(found: &[&str], obeyed: &[String]) -> Option<Failure> {
    let first = found.iter().find(|name| obeyed.iter().any(|obeyed| obeyed == **name))?;
    Some(match *first {
        TDM_RESERVATION => Failure::Reserved,
        TRAIN_AI => Failure::NotForTraining,
        _ => Failure::OptedOut,
    })
}

/// The directives of one header that are for everybody or for `robot`.
fn directives<'a>(value: &'a str, robot: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    let mut for_us = true;
    value.split(',').filter_map(move |part| {
        let mut directive = part.trim();
        if let Some((name, rest)) = directive.split_once(':') {
            if WITH_VALUE.iter().any(|known| known.eq_ignore_ascii_case(name.trim())) {
                return None;
            }
            for_us = robot.is_some_and(|robot| robot.eq_ignore_ascii_case(name.trim()));
            directive = rest.trim();
        }
        for_us.then_some(directive)
    })
}

/// Whether `train-ai=n` is the last word of a dictionary of preferences on training.
pub(super) fn refuses_training(usage: &str) -> bool {
    let mut preferences = usage.split(',').filter_map(|member| {
        let (name, value) = member.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case(TRAIN_AI).then(|| value.trim())
    });
    preferences.next_back().is_some_and(|value| value.eq_ignore_ascii_case("n"))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn found(headers: &[(&str, &str)], robot: Option<&str>) -> String {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                (name.parse::<HeaderName>().unwrap(), value)
            })
            .collect();
        opt_outs(&headers, robot).join(", ")
    }

    #[test]
    fn directives_apply_to_all_crawlers_or_to_the_named_one() {
        let found = |value: &str, robot| found(&[("x-robots-tag", value)], robot);
        assert_eq!(found("noai", None), "noai");
        assert_eq!(found("all, NoImageAI", None), "noimageai");
        assert_eq!(found("noml,noai", None), "noai, noml");
        assert_eq!(found("all", None), "");
        assert_eq!(found("nofollow, noarchive", None), "");
        assert_eq!(found("otherbot: noindex, noai", None), "", "addressed to another crawler");
        assert_eq!(found("ourbot: nofollow, noai", Some("OurBot")), "noai");
        assert_eq!(found("otherbot: noai", Some("ourbot")), "");
        assert_eq!(found("max-snippet: 20, noindex", None), "noindex");
        assert_eq!(found("unavailable_after: 25 Jun 2030 15:00:00 PST, noindex", None), "noindex");
        assert_eq!(found("", None), "");
    }

    #[test]
    fn reservations_and_preferences() {
        assert_eq!(found(&[("tdm-reservation", " 1 ")], None), "tdm-reservation");
        for value in ["0", "", "true", "11"] {
            assert_eq!(found(&[("tdm-reservation", value)], None), "", "{value}");
        }
        // The examples of draft-ietf-aipref-attach, and dictionaries of RFC 8941: the last of a name counts.
        for refused in
            ["train-ai=n", "search=y, train-ai=n", "train-ai=n;x=1", "train-ai=y,train-ai=n", " Train-AI = n"]
        {
            assert_eq!(found(&[("content-usage", refused)], None), "train-ai", "{refused}");
        }
        for allowed in
            ["train-ai=y", "train-ai", "search=n", "train-ai=n, train-ai=y", "train-aix=n", "\u{e4}=n", ""]
        {
            assert_eq!(found(&[("content-usage", allowed)], None), "", "{allowed}");
        }
        let both = [("content-usage", "train-ai=n"), ("content-usage", "train-ai=y")];
        assert_eq!(found(&both, None), "", "several headers are one list");
        let all = [("content-usage", "train-ai=n"), ("tdm-reservation", "1"), ("x-robots-tag", "noai")];
        assert_eq!(found(&all, None), "noai, tdm-reservation, train-ai");
    }

    #[test]
    fn only_what_is_obeyed_refuses() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let all = ["noai", "tdm-reservation", "train-ai"];
        assert_eq!(refusal(&all, &names(&OPT_OUTS)), Some(Failure::OptedOut));
        assert_eq!(refusal(&all, &names(&["tdm-reservation", "train-ai"])), Some(Failure::Reserved));
        assert_eq!(refusal(&all, &names(&["train-ai"])), Some(Failure::NotForTraining));
        assert_eq!(refusal(&all, &names(&["noml"])), None);
        assert_eq!(refusal(&[], &names(&OPT_OUTS)), None);
    }
}
