//! `holdfast token`: makes a bearer token for a client. It is shown once, on stdout; the
//! service and its configuration only ever have its hash.

use crate::config::SHA256_PREFIX;
use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args as ClapArgs;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::io::Write as _;
use std::process::ExitCode;

/// Random bytes of a token: nobody guesses them, so that a plain hash keeps them.
const TOKEN_BYTES: usize = 32;

/// What tokens begin with, so that those that got out can be searched for.
const TOKEN_PREFIX: &str = "hf_";

/// For whom.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The client's name in the configuration.
    name: String,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut bytes = [0; TOKEN_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| anyhow!("the system has no random bytes"))?;
    let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let mut stderr = std::io::stderr();
    write!(
        stderr,
        "# For the configuration; the client sends \"authorization: Bearer TOKEN\".\n\
         [[client]]\nname = {:?}\ntokens = [\"{}\"]\n",
        args.name,
        hashed(&token)
    )?;
    writeln!(std::io::stdout(), "{token}")?;
    Ok(ExitCode::SUCCESS)
}

fn hashed(token: &str) -> String {
    let digest = digest(&SHA256, token.as_bytes());
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("{SHA256_PREFIX}{}", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::digest_of;

    #[test]
    fn the_configuration_reads_what_is_printed() {
        let digest = digest_of(&hashed("hello")).unwrap();
        // sha256sum of the same text.
        assert_eq!(digest[..4], [0x2c, 0xf2, 0x4d, 0xba]);
    }
}
