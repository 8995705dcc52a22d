//! Secrets: texts that do not show, written into the configuration, or in a file of their own,
//! or a credential of systemd. Called by the sections that have some, and by `cli` for
//! [`open_to_all`].
//!
//! # Invariants
//! - A secret is in no Debug text, no error and no serialised form (`load`'s test
//!   `secrets_do_not_show`, `a_secret_s_file_is_read_and_never_told`).
//! - A file is read when the configuration is loaded, and again at each reload; it is bounded.

use super::Config;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Bytes of a secret's file: the longest that is in use is a URL.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where systemd tells a service that its credentials are.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// How errors say that systemd has not started the process, or has no credentials for it.
pub(super) const NO_CREDENTIALS: &str =
    "CREDENTIALS_DIRECTORY is not set: the unit has no LoadCredential=";

/// The permission of all who are neither the file's owner nor in its group.
const OTHERS_READ: u32 = 0o004;

/// What a value may be.
const FORMS: &str = "text, or { file = \"/path\" }, or { credential = \"name\" }";

/// The key of the hashes that stand for secrets: another one in each process.
static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret {
    text: String,
    /// The file that it was read from.
    file: Option<PathBuf>,
}

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            file: None,
        }
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Reads one from a file, without the end of its last line.
    fn in_file(file: PathBuf) -> Result<Self, String> {
        let failed = |error: &dyn fmt::Display| format!("{}: {error}", file.display());
        let mut bytes = Vec::new();
        File::open(&file)
            .and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| failed(&error))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(failed(&format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        // The error would quote the bytes.
        let mut text = String::from_utf8(bytes).map_err(|_| failed(&"not UTF-8"))?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        if text.is_empty() {
            return Err(failed(&"empty"));
        }
        Ok(Self {
            text,
            file: Some(file),
        })
    }

    /// Reads one that systemd (`LoadCredential=`) put into a directory.
    fn in_credential(dir: Option<&Path>, name: &str) -> Result<Self, String> {
        let is_name = !name.is_empty() && !matches!(name, "." | "..") && !name.contains('/');
        if !is_name {
            return Err(format!("{name:?} is no name of a credential"));
        }
        let Some(dir) = dir else {
            return Err(format!("credential {name:?}: {NO_CREDENTIALS}"));
        };
        Self::in_file(dir.join(name))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// As a keyed hash: it shows that a secret is another one, and nothing else. The key is
/// drawn by each process, so that nobody can try texts against a hash that got out.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(HASHES.hash_one(&self.text))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Forms)
    }
}

/// Reads a secret's forms. No error quotes a value, which may be a secret in a wrong place.
struct Forms;

impl<'de> Visitor<'de> for Forms {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMS)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom(format!("expected {FORMS}")))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(format!("expected {FORMS}")))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom(format!("expected {FORMS}")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let wrong = || de::Error::custom(format!("expected {FORMS}"));
        let (Some(form), None) = (map.next_entry::<String, String>().map_err(|_| wrong())?, {
            map.next_entry::<String, String>().map_err(|_| wrong())?
        }) else {
            return Err(wrong());
        };
        match form {
            (key, path) if key == "file" => Secret::in_file(PathBuf::from(path)),
            (key, name) if key == "credential" => {
                let dir = std::env::var_os(CREDENTIALS).map(PathBuf::from);
                Secret::in_credential(dir.as_deref(), &name)
            }
            _ => return Err(wrong()),
        }
        .map_err(de::Error::custom)
    }
}

/// All secrets of a configuration, with their keys.
fn all(config: &Config) -> Vec<(&'static str, &Secret)> {
    let mut all = Vec::new();
    if let Some(own) = &config.rabbitmq {
        all.extend(own.urls.iter().map(|url| ("rabbitmq.urls", url)));
    }
    if let Some(own) = &config.clickhouse {
        all.push(("clickhouse.password", &own.password));
    }
    if let Some(own) = &config.postgres {
        all.push(("postgres.url", &own.url));
    }
    let webhooks = &config.webhooks;
    all.push(("webhooks.hmac_secret", &webhooks.hmac_secret));
    for (key, webhook) in [
        ("webhooks.vidooly", &webhooks.vidooly),
        ("webhooks.branch", &webhooks.branch),
        ("webhooks.graphy", &webhooks.graphy),
        ("webhooks.webengage", &webhooks.webengage),
        ("webhooks.shopify", &webhooks.shopify),
    ] {
        let own = webhook.secrets.iter().chain(&webhook.client_secrets);
        all.extend(own.map(|secret| (key, secret)));
    }
    if let Some(own) = &config.webengage {
        all.push(("webengage.api_key", &own.api_key));
        all.push(("webengage.brand_api_key", &own.brand_api_key));
    }
    if let Some(own) = &config.sentry {
        all.push(("sentry.dsn", &own.dsn));
    }
    all
}

/// The secrets' files that everybody on this host may read, a line each.
#[must_use]
pub fn open_to_all(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, secret) in all(config) {
        let Some(file) = &secret.file else { continue };
        // One that went away since it was read is open to nobody.
        let mode = std::fs::metadata(file).map_or(0, |meta| meta.mode());
        if mode & OTHERS_READ != 0 {
            let file = file.display();
            lines.push(format!("{key}: {file} may be read by everybody: chmod o-r"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Errors, changed_keys, load_from};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn load(text: &str) -> Result<Config, String> {
        load_from(text, std::iter::empty()).map_err(|Errors(errors)| errors.join("\n"))
    }

    #[test]
    fn a_secret_s_file_is_read_and_never_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let text = |form: &str| format!("[clickhouse]\npassword = {form}");
        let of = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            load(&text(&format!("{{ file = {path:?} }}")))
        };
        let password = |config: Config| config.clickhouse.unwrap().password;
        for (content, meant) in [
            (&b"hunter2"[..], "hunter2"),
            (b"hunter2\n", "hunter2"),
            (b"hunter2\r\n", "hunter2"),
            (b" hunter2\n\n", " hunter2\n"),
        ] {
            assert_eq!(password(of(content).unwrap()).expose(), meant);
        }
        let (one, two) = (of(b"hunter2").unwrap(), of(b"hunter3").unwrap());
        assert!(!format!("{one:?}").contains("hunter2"));
        assert_eq!(changed_keys(&one, &two).unwrap(), ["clickhouse.password"]);
        let spelled_out = load(&text("\"hunter3\"")).unwrap();
        assert!(changed_keys(&two, &spelled_out).unwrap().is_empty());
        let at = format!("clickhouse.password: {}: ", path.display());
        for (content, why) in [
            (vec![], "empty"),
            (b"\n".to_vec(), "empty"),
            (b"hunter2\xff".to_vec(), "not UTF-8"),
            (b"hunter2 ".repeat(9_000), "larger than 65536 bytes"),
        ] {
            assert_eq!(of(&content).unwrap_err(), format!("{at}{why}"));
        }
        fs::remove_file(&path).unwrap();
        let missing = load(&text(&format!("{{ file = {path:?} }}"))).unwrap_err();
        assert!(
            missing.starts_with(&at) && missing.contains("No such file"),
            "{missing}"
        );
    }

    #[test]
    fn what_is_no_form_of_a_secret_is_refused_without_being_quoted() {
        for form in [
            "5",
            "true",
            "1.5",
            "[\"hunter2\"]",
            "{}",
            "{ hunter2 = \"hunter2\" }",
            "{ file = 5 }",
            "{ file = [\"hunter2\"] }",
            "{ file = \"/a\", credential = \"b\" }",
        ] {
            let error = load(&format!("[sentry]\ndsn = {form}")).unwrap_err();
            assert!(error.starts_with("sentry.dsn"), "{form}: {error}");
            assert!(
                error.contains("expected text, or { file"),
                "{form}: {error}"
            );
            assert!(!error.contains("hunter2"), "{form}: {error}");
        }
        // Where a list of them belongs, or the section that one is in.
        for text in [
            "[rabbitmq]\nurls = \"hunter2\"",
            "[webhooks.shopify]\nsecrets = \"hunter2, expected a sequence\"",
            "[[client]]\nname = \"a\"\ntokens = \"hunter2\"",
            "postgres = \"hunter2\"",
            "clickhouse = 'hunter2 \"x\" `y`'",
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains("expected"), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn credentials_are_files_of_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("amqp"), "hunter2\n").unwrap();
        let read = |dir, name| Secret::in_credential(dir, name);
        let there = Some(dir.path());
        assert_eq!(read(there, "amqp").unwrap().expose(), "hunter2");
        for name in ["", ".", "..", "../amqp", "/etc/passwd"] {
            let error = read(there, name).unwrap_err();
            assert!(error.contains("no name of a credential"), "{error}");
        }
        let unset = read(None, "amqp").unwrap_err();
        assert!(unset.contains("LoadCredential="), "{unset}");
    }

    #[test]
    fn files_of_secrets_that_all_may_read_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            format!("{{ file = {path:?} }}")
        };
        let open = |name: &str, text: &str| file(name, 0o644, text);
        let own = file("own", 0o640, "own");
        let text = format!(
            "[rabbitmq]\nurls = [{}]\n[clickhouse]\npassword = {own}\n[postgres]\nurl = {}\n[webhooks]\nhmac_secret = {}\n[webhooks.branch]\nverify = \"secret\"\nsecrets = [\"a\", {}]\n[webhooks.shopify]\nclient_secrets = [{}]\n[webengage]\napi_key = {}\nbrand_api_key = {own}\nurl = \"http://a\"\nuser_url = \"http://a\"\nbrand_url = \"http://a\"\nbrand_user_url = \"http://a\"\n[sentry]\ndsn = {}\n",
            open("amqp", "amqp://u:hunter2@h\n"),
            open("postgres", "postgres://u:hunter2@h/d\n"),
            open("hmac", "aHVudGVyMg=="),
            open("branch", "hunter2"),
            open("shopify", "hunter2"),
            open("webengage", "hunter2"),
            open("sentry", "http://hunter2@localhost/1"),
        );
        let config = load(&text).unwrap();
        assert_eq!(
            config.rabbitmq.as_ref().unwrap().urls[0].expose(),
            "amqp://u:hunter2@h"
        );
        let lines = open_to_all(&config);
        let keys: Vec<_> = lines
            .iter()
            .map(|line| line.split(':').next().unwrap())
            .collect();
        let wanted = [
            "rabbitmq.urls",
            "postgres.url",
            "webhooks.hmac_secret",
            "webhooks.branch",
            "webhooks.shopify",
            "webengage.api_key",
            "sentry.dsn",
        ];
        assert_eq!(keys, wanted);
        assert!(!lines.concat().contains("hunter2"));
    }

    #[test]
    fn a_variable_may_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "hunter2\n").unwrap();
        let load = |path: &Path| {
            let name = "HOLDFAST__CLICKHOUSE__PASSWORD__FILE".to_owned();
            load_from("", [(name, path.display().to_string())].into_iter())
        };
        let config = load(&path).unwrap();
        assert_eq!(config.clickhouse.unwrap().password.expose(), "hunter2");
        let missing = load(&dir.path().join("missing")).unwrap_err();
        assert!(
            missing.to_string().contains("clickhouse.password"),
            "{missing}"
        );
    }
}
