//! Bearer tokens for http(s) servers, from the environment. A token belongs to one host: it is sent to no other one, and
//! only over https or to this machine.
//!
//! - `HF_TOKEN`: for the Hugging Face Hub, the host of `HF_ENDPOINT` (<https://huggingface.co>);
//! - `LOADER_HTTP_TOKENS`: for other hosts, `HOST=TOKEN`, several separated by commas. A port is a part of the host:
//!   `data.example.org:8443=TOKEN`.

use reqwest::header::HeaderValue;
use url::{Host, Url};

use crate::process::process;

/// Environment variable with the tokens of other hosts than the hub.
const VARIABLE: &str = "LOADER_HTTP_TOKENS";

/// Address of the Hugging Face Hub, without a slash at its end.
pub(crate) fn hub() -> String {
    let own = std::env::var("HF_ENDPOINT").ok().filter(|text| !text.trim().is_empty());
    own.map_or_else(
        || "https://huggingface.co".to_owned(),
        |text| text.trim().trim_end_matches('/').to_owned(),
    )
}

/// The value of the header `Authorization` for a request to this address, if there is a token for its host.
pub fn authorization(address: &str) -> Option<HeaderValue> {
    let url = Url::parse(address).ok()?;
    if url.scheme() != "https" && !(url.scheme() == "http" && is_this_machine(&url)) {
        return None;
    }
    let host = host_of(&url)?;
    process().tokens(from_environment).iter().find(|(of, _)| *of == host).map(|(_, value)| value.clone())
}

/// Host and token of each entry of the environment.
fn from_environment() -> Vec<(String, HeaderValue)> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    tokens(&variable("HF_TOKEN"), &hub(), &variable(VARIABLE))
}

/// Host and token of each entry. What cannot be used is reported without showing it.
fn tokens(hub_token: &str, hub: &str, others: &str) -> Vec<(String, HeaderValue)> {
    let mut found = Vec::new();
    let mut add = |host: Option<String>, token: &str, what: &str| {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .ok()
            .filter(|_| !token.trim().is_empty());
        match host.zip(value) {
            Some((host, mut value)) => {
                value.set_sensitive(true);
                found.push((host, value));
            }
            None => {
                process().report(&format!("warning: {what} is not used: it is not of the form HOST=TOKEN"));
            }
        }
    };
    if !hub_token.trim().is_empty() {
        add(Url::parse(hub).ok().as_ref().and_then(host_of), hub_token, "HF_TOKEN with HF_ENDPOINT");
    }
    let entries = others.split(',').filter(|entry| !entry.trim().is_empty());
    for (number, entry) in (1..).zip(entries) {
        let (host, token) = entry.split_once('=').unwrap_or((entry, ""));
        let host = Url::parse(&format!("https://{}/", host.trim())).ok();
        add(host.as_ref().and_then(host_of), token, &format!("entry {number} of {VARIABLE}"));
    }
    found
}

/// Host and port, which is left out where it is that of the scheme.
fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_one_host() {
        let found =
            tokens(" hf_x\n", "https://hub.example", "a.example=one, b.example:8443=t=w=o==,bad,=none,c d=e");
        let shown: Vec<(&str, &str)> =
            found.iter().map(|(host, value)| (host.as_str(), value.to_str().unwrap())).collect();
        let expected = [
            ("hub.example", "Bearer hf_x"),
            ("a.example", "Bearer one"),
            ("b.example:8443", "Bearer t=w=o=="),
        ];
        assert_eq!(shown, expected);
        assert!(!format!("{found:?}").contains("hf_x"), "tokens are not shown");
        assert!(tokens("", "https://hub.example", "").is_empty());
    }
}
