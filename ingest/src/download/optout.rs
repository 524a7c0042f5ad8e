//! `X-Robots-Tag`: a response header by which owners say that an image must not be used.
//!
//! The header is a list of directives separated by commas. Directives may be addressed to one crawler
//! (`crawler: noai, noindex`), and some have a value (`max-snippet: 20`).

use reqwest::header::HeaderMap;

/// Directives that exclude an image: those of img2dataset and `noml`.
pub const DIRECTIVES: [&str; 5] = ["noai", "noimageai", "noindex", "noimageindex", "noml"];

/// Directives with a value: the text before their colon is not the name of a crawler.
const WITH_VALUE: [&str; 4] = ["unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"];

/// Whether a header of the response has one of `directives`, addressed to all crawlers or to `robot`.
pub(super) fn is_opted_out(headers: &HeaderMap, directives: &[String], robot: Option<&str>) -> bool {
    headers.get_all("x-robots-tag").iter().any(|value| {
        // Directives are ASCII, so replaced bytes cannot be part of one.
        disallows(&String::from_utf8_lossy(value.as_bytes()), directives, robot)
    })
}

fn disallows(value: &str, directives: &[String], robot: Option<&str>) -> bool {
    let mut for_us = true;
    for part in value.split(',') {
        let mut directive = part.trim();
        if let Some((name, rest)) = directive.split_once(':') {
            if WITH_VALUE.iter().any(|known| known.eq_ignore_ascii_case(name.trim())) {
                continue;
            }
            for_us = robot.is_some_and(|robot| robot.eq_ignore_ascii_case(name.trim()));
            directive = rest.trim();
        }
        if for_us && directives.iter().any(|unwanted| unwanted.eq_ignore_ascii_case(directive)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_apply_to_all_crawlers_or_to_the_named_one() {
        let directives = DIRECTIVES.map(str::to_owned);
        let disallows = |value: &str, robot: Option<&str>| super::disallows(value, &directives, robot);
        assert!(disallows("noai", None));
        assert!(disallows("all, NoImageAI", None));
        assert!(!disallows("all", None));
        assert!(!disallows("nofollow, noarchive", None));
        assert!(!disallows("otherbot: noindex, noai", None), "addressed to another crawler");
        assert!(disallows("ourbot: nofollow, noai", Some("OurBot")));
        assert!(!disallows("otherbot: noai", Some("ourbot")));
        assert!(disallows("max-snippet: 20, noindex", None));
        assert!(disallows("unavailable_after: 25 Jun 2030 15:00:00 PST, noindex", None));
        assert!(!disallows("", None));
    }
}
