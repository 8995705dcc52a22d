//! `[clicks]`: what makes a click on a short link a bot's. Called by `app` and `check`.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// `[clicks]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Clicks {
    /// Texts in a Referer that only bots send. Default: link previews and crawlers.
    pub bot_referers: Vec<String>,
    /// Addresses of bots.
    pub bot_ips: Vec<IpAddr>,
    /// A file with more of them, one a line; `#` begins a comment.
    pub bot_ips_file: Option<PathBuf>,
    /// Clicks of one address on one day (UTC) that may be a person's. Counted in each
    /// process by itself. Default 25.
    pub per_day_max: usize,
}

/// Hosts whose previews and crawlers follow links.
const BOT_REFERERS: [&str; 19] = [
    "facebookexternalhit",
    "googlebot",
    "google.com/bot",
    "bing.com/bingbot",
    "baiduspider",
    "yandex.com/bots",
    "duckduckbot",
    "ahrefs.com",
    "semrush.com",
    "majestic12",
    "mj12bot",
    "dotbot",
    "petalbot",
    "applebot",
    "archive.org",
    "slackbot",
    "telegrambot",
    "twitterbot",
    "linkedinbot",
];

impl Default for Clicks {
    fn default() -> Self {
        Self {
            bot_referers: BOT_REFERERS.map(str::to_owned).to_vec(),
            bot_ips: Vec::new(),
            bot_ips_file: None,
            per_day_max: 25,
        }
    }
}

impl Clicks {
    /// All addresses of bots.
    ///
    /// # Errors
    /// When the file cannot be read, or a line of it is no address.
    pub fn all_bot_ips(&self) -> Result<Vec<IpAddr>, String> {
        let mut all = self.bot_ips.clone();
        let Some(path) = &self.bot_ips_file else {
            return Ok(all);
        };
        let named = |what: &str| format!("clicks.bot_ips_file: {}: {what}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(&error.to_string()))?;
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                let address = line.parse();
                all.push(address.map_err(|_| named(&format!("line {}: no address", at + 1)))?);
            }
        }
        Ok(all)
    }
}
