//! `robots.txt`: which paths of a host a crawler may ask for (RFC 9309), and which of them must not be used for training
//! (`Content-Usage` of AIPREF, draft-ietf-aipref-attach). Read once per host if the user wants it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use url::Url;

use super::optout;

/// The name of this program's robot.
pub(super) const ROBOT: &str = "simzss-ingest";
/// Bytes of a file that are read; the rest is ignored.
pub(super) const MAX_BYTES: usize = 500 << 10;
/// How long the rules of a host are kept.
const LASTS: Duration = Duration::from_hours(24);
/// How long it is remembered that they could not be read.
const FAILURE_LASTS: Duration = Duration::from_mins(1);
/// Maximum number of hosts whose rules are kept.
const MAX_HOSTS: usize = 50_000;
/// Maximum size of all rules that are kept, bytes.
const MAX_KEPT: usize = 64 << 20;

/// The rules of a host for this robot: all may be asked for and used where no rule matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// What may be asked for.
    access: Vec<Rule>,
    /// What may be used for training.
    training: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// Normalised; `*` stands for any text, and `$` at its end for the end of the path.
    pattern: String,
}

/// What the rules say of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be asked for.
    Allowed,
    /// It may be asked for, but its owner prefers that no model is trained on it.
    NotForTraining,
    /// It may not be asked for.
    Disallowed,
}

impl Rules {
    /// The rules in a file for the first of these robots that it names, otherwise those for all robots.
    pub(super) fn parse(file: &[u8], robots: &[&str]) -> Self {
        let text = String::from_utf8_lossy(&file[..file.len().min(MAX_BYTES)]);
        let mut groups: Vec<Option<Self>> = vec![None; robots.len() + 1];
        // The groups that the current rules are for, and whether a rule has come since the last name.
        let (mut current, mut has_rules): (Vec<usize>, bool) = (Vec::new(), false);
        for line in text.trim_start_matches('\u{feff}').split(['\r', '\n']) {
            let line = line.split('#').next().unwrap_or_default();
            let Some((name, value)) = line.split_once(':') else { continue };
            let (name, value) = (name.trim(), value.trim());
            if name.eq_ignore_ascii_case("user-agent") {
                if std::mem::take(&mut has_rules) {
                    current.clear();
                }
                let product = value.split(['/', ' ', '\t']).next().unwrap_or_default();
                let known = robots.iter().position(|robot| robot.eq_ignore_ascii_case(product));
                let group = known.or((product == "*").then_some(robots.len()));
                if let Some(group) = group {
                    groups[group].get_or_insert_default();
                    current.push(group);
                }
                continue;
            }
            let mut add = |rule: Option<Rule>, kind: fn(&mut Self) -> &mut Vec<Rule>| {
                has_rules = true;
                for &group in &current {
                    kind(groups[group].get_or_insert_default()).extend(rule.clone());
                }
            };
            let allow = name.eq_ignore_ascii_case("allow");
            if allow || name.eq_ignore_ascii_case("disallow") {
                // A rule without a path says nothing.
                let rule = (!value.is_empty()).then(|| Rule { allow, pattern: normalised(value) });
                add(rule, |rules| &mut rules.access);
            } else if name.eq_ignore_ascii_case("content-usage") {
                // Without a path, the preference is for all.
                let path = value.split([' ', '\t']).next().filter(|path| path.starts_with('/'));
                let usage = &value[path.map_or(0, str::len)..];
                let pattern = normalised(path.unwrap_or_default());
                let rule = Rule { allow: !optout::refuses_training(usage), pattern };
                add(Some(rule), |rules| &mut rules.training);
            }
        }
        groups.into_iter().flatten().next().unwrap_or_default()
    }

    /// What they say of a URL of the host: of each kind of rule, the longest pattern that matches decides. Of two as long, the one that
    /// allows to ask for it, and the one that does not allow training.
    pub(super) fn verdict(&self, url: &Url) -> Verdict {
        let mut path = url.path().to_owned();
        if let Some(query) = url.query() {
            path = format!("{path}?{query}");
        }
        let path = normalised(&path);
        let matching = |rules: &'_ [Rule], first: bool| {
            let matching = rules.iter().filter(|rule| matches(&rule.pattern, &path));
            let last = matching.max_by_key(|rule| (rule.pattern.len(), rule.allow == first));
            last.is_none_or(|rule| rule.allow)
        };
        if !matching(&self.access, true) {
            Verdict::Disallowed
        } else if matching(&self.training, false) {
            Verdict::Allowed
        } else {
            Verdict::NotForTraining
        }
    }

    fn bytes(&self) -> usize {
        let rules = self.access.iter().chain(&self.training);
        rules.map(|rule| size_of::<Rule>() + rule.pattern.len()).sum()
    }
}

/// A path in which every character is encoded in one way: letters, digits and `-._~` as they are, everything that is not ASCII,
/// and what was encoded, as `%` and two upper-case hexadecimal digits.
fn normalised(path: &str) -> String {
    let mut normal = String::with_capacity(path.len());
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut rest = path.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if let (b'%', [high, low, after @ ..]) = (byte, after)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            rest = after;
            let encoded = (16 * high + low) as u8;
            if encoded.is_ascii_alphanumeric() || b"-._~".contains(&encoded) {
                normal.push(char::from(encoded));
            } else {
                normal.push_str(&format!("%{encoded:02X}"));
            }
        } else if byte.is_ascii() {
            normal.push(char::from(*byte));
        } else {
            normal.push_str(&format!("%{byte:02X}"));
        }
    }
    normal
}

/// Whether a pattern matches the beginning of a path.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, whole) = pattern.strip_suffix('$').map_or((pattern, false), |pattern| (pattern, true));
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| path.strip_prefix(first)) else { return false };
    let mut last = None;
    for piece in pieces {
        // The piece before has to come as early as possible, the last one of a whole path at its end.
        if let Some(piece) = last.replace(piece) {
            let Some((_, after)) = rest.split_once(piece) else { return false };
            rest = after;
        }
    }
    match last {
        None => !whole || rest.is_empty(),
        Some(piece) if whole => rest.ends_with(piece),
        Some(piece) => rest.contains(piece),
    }
}

/// The rules of the hosts that were asked.
#[derive(Default)]
pub(super) struct Robots(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    hosts: HashMap<String, Arc<Entry>>,
    /// Size of their rules, bytes.
    bytes: usize,
}

struct Entry {
    asked: Instant,
    /// Tasks that need the rules of the same host share one request. `None`: they cannot be read.
    rules: OnceCell<Option<Rules>>,
}

impl Entry {
    fn is_fresh(&self) -> bool {
        let lasts = if matches!(self.rules.get(), Some(None)) { FAILURE_LASTS } else { LASTS };
        self.asked.elapsed() < lasts
    }
}

impl Robots {
    /// What the rules of its host say of `url`; `None` if they cannot be read. `read` reads them: `None` if that fails.
    pub(super) async fn verdict(
        &self,
        url: &Url,
        read: impl Future<Output = Option<Rules>>,
    ) -> Option<Verdict> {
        let entry = self.entry(&url.origin().ascii_serialization());
        let mut new = 0;
        let read = async {
            let rules = read.await;
            new = rules.as_ref().map_or(0, Rules::bytes);
            rules
        };
        let verdict = entry.rules.get_or_init(|| read).await.as_ref().map(|rules| rules.verdict(url));
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += new;
        if kept.bytes > MAX_KEPT {
            *kept = Kept::default();
        }
        verdict
    }

    fn entry(&self, origin: &str) -> Arc<Entry> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = kept.hosts.get(origin).filter(|entry| entry.is_fresh()) {
            return Arc::clone(entry);
        }
        if kept.hosts.len() >= MAX_HOSTS {
            *kept = Kept::default();
        }
        let entry = Arc::new(Entry { asked: Instant::now(), rules: OnceCell::new() });
        kept.hosts.insert(origin.to_owned(), Arc::clone(&entry));
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file says to a robot of a URL.
    fn verdict(file: &str, robots: &[&str], url: &str) -> Verdict {
        Rules::parse(file.as_bytes(), robots).verdict(&Url::parse(url).unwrap())
    }

    fn allowed(file: &str, url: &str) -> bool {
        verdict(file, &["ourbot", ROBOT], url) != Verdict::Disallowed
    }

    /// The examples of RFC 9309, sections 2.2.2, 2.2.3, 5.1 and 5.2.
    #[test]
    fn the_examples_of_the_standard() {
        let simple = "User-Agent: *\nDisallow: *.gif$\nDisallow: /example/\nAllow: /publications/\n\n\
                      User-Agent: foobot\nDisallow:/\nAllow:/example/page.html\nAllow:/example/allowed.gif\n\n\
                      User-Agent: barbot\nUser-Agent: bazbot\nDisallow: /example/page.html\n\n\
                      User-Agent: quxbot\n";
        let of = |robot: &str, path: &str| {
            verdict(simple, &[robot], &format!("https://www.example.com{path}")) == Verdict::Allowed
        };
        let paths =
            ["/example/page.html", "/example/allowed.gif", "/publications/a.html", "/a.gif", "/a.gif?b"];
        for (robot, expected) in [
            ("anybot", [false, false, true, false, true]),
            ("FooBot", [true, true, false, false, false]),
            ("barbot", [false, true, true, true, true]),
            ("bazbot", [false, true, true, true, true]),
            ("quxbot", [true; 5]),
        ] {
            assert_eq!(paths.map(|path| of(robot, path)), expected, "{robot}");
        }
        let longest = "User-Agent: foobot\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif\n";
        let of = |path: &str| {
            verdict(longest, &["foobot"], &format!("https://www.example.com{path}")) == Verdict::Allowed
        };
        assert!(of("/example/page/a.gif") && !of("/example/page/disallowed.gif"));
        for (pattern, path) in [
            ("/foo/bar?baz=quz", "/foo/bar?baz=quz"),
            ("/foo/bar?baz=http://foo.bar", "/foo/bar?baz=http://foo.bar"),
            ("/foo/bar/ツ", "/foo/bar/%E3%83%84"),
            ("/foo/bar/%E3%83%84", "/foo/bar/%E3%83%84"),
            ("/foo/bar/%62%61%7A", "/foo/bar/baz"),
        ] {
            assert!(
                !allowed(&format!("user-agent: *\ndisallow: {pattern}"), &format!("http://a{path}")),
                "{pattern}"
            );
        }
    }

    #[test]
    fn groups_of_a_robot_are_one_and_others_are_ignored() {
        let file = "\u{feff}disallow: /before\r\nUSER-AGENT : OurBot/2.0 # us\r\nSitemap: /x\r\nuser-agent: other\r\n\
                    disallow: /a\r\ncrawl-delay: 3\r\ndisallow:\r\nuser-agent: third\r\ndisallow: /b\r\n\
                    user-agent: ourbot\r\ndisallow: /c#comment\r\nuser-agent: *\r\ndisallow: /\r\n";
        let paths = ["/before", "/a1", "/b", "/c", "/d"];
        let expected = [true, false, true, false, true];
        assert_eq!(paths.map(|path| allowed(file, &format!("http://h{path}"))), expected);
        // Without a group of its own, that of everybody.
        assert_eq!(verdict(file, &["unnamed"], "http://h/d"), Verdict::Disallowed);
        assert!(allowed("", "http://h/") && allowed("<html>a: b</html>", "http://h/"));
        assert_eq!(Rules::parse(b"\xff\xfe\0", &[ROBOT]), Rules::default());
    }

    /// The example of draft-ietf-aipref-attach, and its rules of parsing.
    #[test]
    fn preferences_on_training() {
        let example = "User-Agent: *\nAllow: /\nDisallow: /never/\nContent-Usage: train-ai=n\nContent-Usage: /ai-ok/ train-ai=y\n\n\
                       User-Agent: ExampleBot\nAllow: /\nContent-Usage: train-ai=y\n";
        let of = |robot: &str, path: &str| verdict(example, &[robot], &format!("http://h{path}"));
        let paths = ["/test", "/never/test", "/ai-ok/test"];
        let others = [Verdict::NotForTraining, Verdict::Disallowed, Verdict::Allowed];
        assert_eq!(paths.map(|path| of("anybot", path)), others);
        assert_eq!(paths.map(|path| of("examplebot", path)), [Verdict::Allowed; 3]);
        for (rules, path, refuses) in [
            (" content-usage\t:\t/a%20b\ttrain-ai=n # why", "/a b/c", true),
            ("Content-Usage: /a train-ai=n", "/b", false),
            // The longest pattern counts, whatever it says and wherever it stands.
            ("Content-Usage: /a/b search=n\nContent-Usage: /a train-ai=n", "/a/b", false),
            ("Content-Usage: /a/*.jpg$ train-ai=n\nContent-Usage: /a train-ai=y", "/a/c.jpg", true),
            // Of conflicting ones the one that forbids.
            ("Content-Usage: /a train-ai=n\nContent-Usage: /a train-ai=y", "/a", true),
            ("Content-Usage: /a train-ai=y\nContent-Usage: /a train-ai=n", "/a", true),
            ("Content-Usage: search=n, train-ai=n", "/", true),
            ("Content-Usage: /train-ai=n", "/train-ai=n", false),
            ("Content-Usage:", "/", false),
        ] {
            let file = format!("user-agent: *\n{rules}\n");
            let expected = if refuses { Verdict::NotForTraining } else { Verdict::Allowed };
            assert_eq!(verdict(&file, &[ROBOT], &format!("http://h{path}")), expected, "{rules}");
        }
        // A rule like the others: the next name begins a new group.
        let file = "user-agent: *\ncontent-usage: train-ai=n\nuser-agent: other\ndisallow: /";
        assert_eq!(verdict(file, &[ROBOT], "http://h/"), Verdict::NotForTraining);
    }

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("/", "/", true),
            ("/fish", "/fish.html", true),
            ("/fish", "/Fish", false),
            ("/*.php", "/a/b.php?c", true),
            ("/*.php$", "/a.php?c", false),
            ("/*.php$", "/a.php.php", true),
            ("/a*b*c", "/a-c-b", false),
            ("/a*b*c", "/a-b-b-c-", true),
            ("/a*$", "/abc", true),
            ("$", "", true),
            ("/a$", "/a$", false),
            ("*", "/anything", true),
            ("/*a*a$", "/a", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
        // Many pieces, and a path that almost fits: no backtracking.
        let (pattern, path) = ("*a".repeat(100_000) + "b", "a".repeat(200_000));
        assert!(!matches(&pattern, &path));
    }

    #[tokio::test]
    async fn a_host_is_asked_once_and_failures_are_remembered_for_a_while() {
        let robots = Robots::default();
        let url = Url::parse("http://a.example:81/x/y").unwrap();
        let rules = || async { Some(Rules::parse(b"user-agent: *\ndisallow: /x/", &[ROBOT])) };
        assert_eq!(robots.verdict(&url, rules()).await, Some(Verdict::Disallowed));
        let never = || async { unreachable!("the rules are known") };
        assert_eq!(robots.verdict(&url.join("/z").unwrap(), never()).await, Some(Verdict::Allowed));
        let other = Url::parse("https://a.example:81/x/y").unwrap();
        assert_eq!(robots.verdict(&other, async { None }).await, None);
        assert_eq!(robots.verdict(&other, never()).await, None);
    }
}
