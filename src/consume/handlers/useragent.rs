//! What a browser's user agent says of it. Used by the handlers of clicks and launches.
//!
//! # Invariants
//! - Any text gives an answer; what it does not say is empty.

use serde_json::{Value, json};
use woothee::parser::Parser;

/// Parts of user agents of programs that follow links, beside those that the library
/// knows.
const CRAWLERS: [&str; 16] = [
    "bot",
    "crawl",
    "spider",
    "slurp",
    "preview",
    "facebookexternalhit",
    "whatsapp",
    "curl/",
    "wget/",
    "python-requests",
    "go-http-client",
    "okhttp",
    "java/",
    "headless",
    "scrapy",
    "monitor",
];

/// The parts of a user agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UserAgent {
    pub(super) mozilla: String,
    pub(super) platform: String,
    pub(super) os: String,
    pub(super) os_name: String,
    pub(super) os_version: String,
    pub(super) localization: String,
    pub(super) model: String,
    pub(super) browser_name: String,
    pub(super) browser_version: String,
    /// The library says that it is a crawler.
    pub(super) is_crawler: bool,
    pub(super) is_mobile: bool,
}

impl UserAgent {
    pub(super) fn parse(text: &str) -> Self {
        let mut agent = Self {
            mozilla: after(text, "Mozilla/"),
            ..Self::default()
        };
        let comment = text
            .split_once('(')
            .and_then(|(_, rest)| rest.split_once(')'));
        let comment = comment.map_or("", |(inside, _)| inside);
        let tokens: Vec<_> = comment
            .split(';')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .collect();
        agent.platform = tokens.first().map(|t| (*t).to_owned()).unwrap_or_default();
        let locale = tokens.iter().find(|token| is_locale(token));
        agent.localization = locale.map(|t| (*t).to_owned()).unwrap_or_default();
        agent.model = model(&tokens);
        if let Some(found) = Parser::new().parse(text) {
            let known = |text: &str| match text {
                "UNKNOWN" => String::new(),
                text => text.to_owned(),
            };
            agent.browser_name = known(found.name);
            agent.browser_version = known(found.version);
            agent.os_name = known(found.os);
            agent.os_version = known(&found.os_version);
            agent.is_crawler = found.category == "crawler";
            agent.is_mobile = matches!(found.category, "smartphone" | "mobilephone");
        }
        agent.os = agent.full_name();
        agent
    }

    /// Name and version of the system.
    pub(super) fn full_name(&self) -> String {
        format!("{} {}", self.os_name, self.os_version)
            .trim()
            .to_owned()
    }

    /// As clicks carry it.
    pub(super) fn to_json(&self, text: &str, is_bot: bool) -> Value {
        json!({
            "ua": text, "mozilla": self.mozilla, "platform": self.platform, "os": self.os,
            "osInfo": {
                "FullName": self.full_name(), "Name": self.os_name, "Version": self.os_version,
            },
            "localization": self.localization, "model": self.model,
            "browserName": self.browser_name, "browserVersion": self.browser_version,
            "bot": is_bot, "mobile": self.is_mobile,
        })
    }
}

/// Whether a text is a known program's that follows links.
pub(super) fn is_known_crawler(text: &str) -> bool {
    let lower = text.to_lowercase();
    CRAWLERS.iter().any(|part| lower.contains(part))
}

fn after(text: &str, prefix: &str) -> String {
    let rest = text.split_once(prefix).map_or("", |(_, rest)| rest);
    rest.split([' ', ';', ')'])
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// `en`, `en-us` or `en_US`.
fn is_locale(token: &str) -> bool {
    let (language, country) = token.split_once(['-', '_']).unwrap_or((token, "xx"));
    let letters = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic());
    letters(language) && letters(country) && language.bytes().all(|b| b.is_ascii_lowercase())
}

fn model(tokens: &[&str]) -> String {
    let Some(first) = tokens.first() else {
        return String::new();
    };
    if matches!(*first, "iPhone" | "iPad" | "iPod") {
        return (*first).to_owned();
    }
    let is_android = tokens.iter().any(|token| token.starts_with("Android"));
    let last = tokens
        .last()
        .filter(|last| is_android && !last.starts_with("Android"));
    let last = last.filter(|last| !is_locale(last) && **last != "wv");
    last.map_or_else(String::new, |last| {
        last.split(" Build/").next().unwrap_or_default().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_computers_and_crawlers() {
        let android = UserAgent::parse(
            "Mozilla/5.0 (Linux; Android 13; SM-G991B Build/TP1A) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/112.0.0.0 Mobile Safari/537.36",
        );
        assert_eq!(android.mozilla, "5.0");
        assert_eq!(
            (android.platform.as_str(), android.model.as_str()),
            ("Linux", "SM-G991B")
        );
        assert_eq!(
            (android.os.as_str(), android.is_mobile),
            ("Android 13", true)
        );
        assert_eq!(android.browser_name, "Chrome");
        assert_eq!(android.browser_version, "112.0.0.0");
        let phone = UserAgent::parse(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 16_4 like Mac OS X; en-us) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.4 Mobile/15E148 Safari/604.1",
        );
        assert_eq!(
            (phone.model.as_str(), phone.localization.as_str()),
            ("iPhone", "en-us")
        );
        let crawler = UserAgent::parse(
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        );
        assert!(crawler.is_crawler && !crawler.is_mobile);
        for text in ["", "(", "Mozilla/", "()", "x)(", "\u{1f600}"] {
            let agent = UserAgent::parse(text);
            assert!(!agent.is_crawler, "{text}: {agent:?}");
        }
        assert!(is_known_crawler("curl/8.0") && !is_known_crawler("Mozilla/5.0"));
    }
}
