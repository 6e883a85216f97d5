//! The command line of certgen.

use std::path::PathBuf;
use std::str::FromStr;

use certs::{
    CRL_DAYS, Format, Identity, KeyType, Name, RevocationReason, Role, San, Stage, Within,
};
use clap::{Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  certgen bundle quickstart              everything that `nodebus up` and compose need
  certgen issue viewer alice             a certificate that may read
  certgen issue node kitchen --days 3650
  certgen issue viewer phone --p12       asks for a password; for phones and browsers
  certgen issue broker bus --san 192.168.1.20,bus.example.org --force
  certgen show alice                     what is in it and until when it is valid
  certgen show ./some/cert.pem
  certgen show localhost:8883            what a server shows
  certgen list --expiring 30d            what ends within a month
  certgen renew --all                    what has two thirds of its life behind it
  certgen revoke alice --reason key-compromise
  certgen export kitchen --to ./carry    plain copies, to carry them there
  certgen rotate-ca --stage prepare      begins to replace the authority, without an outage";

const EXIT_CODES: &str = "\
Exit codes: 0 it is there now, 1 it could not be done, 2 the command line is wrong,
3 it exists already but differs (replace it with --force).
needs-renewal: 0 yes, 1 no, 2 there is no such certificate, 4 it could not be told.";

const ROTATION: &str = "\
One after the other, when all have taken what the stage before it wrote:
  certgen rotate-ca --stage prepare   from here on both are trusted, the old one signs
  certgen rotate-ca --stage switch    the new one signs
  certgen renew --all                 every certificate is made anew, with its key
  certgen rotate-ca --stage finish    the old one is no longer trusted
The parts of nodebus take new files by themselves, other programs when they start or reload. What
runs elsewhere needs its new ca.pem before the switch, and its new certificate before the finish.
A stage that was interrupted is completed by running it again.";

/// An identity as people write it: its name alone, or role/name when several have the name.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    Name(Name),
    Identity(Identity),
}

impl FromStr for Who {
    type Err = certs::Error;

    fn from_str(text: &str) -> Result<Self, certs::Error> {
        let uri = format!("urn:nodebus:{}", text.replacen('/', ":", 1));
        match Identity::from_uri(&uri) {
            Some(identity) => Ok(Self::Identity(identity)),
            None => text.parse().map(Self::Name),
        }
    }
}

/// Makes and shows the certificates of nodebus.
#[derive(Debug, Parser)]
#[command(
    name = "certgen",
    version,
    before_help = EXAMPLES,
    after_help = EXIT_CODES,
    help_template = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
)]
pub(crate) struct Args {
    /// Folder of the authority and of all it issued
    #[arg(
        long,
        global = true,
        env = "CERTGEN_DIR",
        default_value = "./pki",
        value_name = "DIR"
    )]
    pub(crate) dir: PathBuf,
    /// Prints JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Prints nothing but errors
    #[arg(long, short, global = true, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// File whose first line is the passphrase of the authority's key; without one, it is asked
    /// for at the terminal
    #[arg(
        long,
        global = true,
        env = "CERTGEN_PASSPHRASE_FILE",
        value_name = "FILE"
    )]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Open descriptor to read that passphrase from
    #[arg(
        long,
        global = true,
        value_name = "NUMBER",
        conflicts_with = "passphrase_file"
    )]
    pub(crate) passphrase_fd: Option<u32>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// At most 50 printable characters: with the tag it is a Common Name of at most 64.
fn ca_name(text: &str) -> Result<String, String> {
    let fits = (1..=50).contains(&text.len()) && text.bytes().all(|b| matches!(b, b' '..=b'~'));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 50 ASCII characters".to_owned())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes the certificate authority, unless there is one
    Init {
        /// What it is called; a random tag is added, since no two are called the same
        #[arg(long, default_value = "nodebus CA", value_parser = ca_name)]
        name: String,
        /// How long it lives; nothing it issues lives longer
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
        years: u32,
        /// Encrypts its key with a passphrase, which every signature then asks for
        #[arg(long)]
        encrypt: bool,
    },
    /// Makes a certificate with its key, unless there is one
    Issue {
        /// What its holder is to the bus
        #[arg(value_enum)]
        role: Role,
        /// Which of that role: 1 to 64 of a-z, 0-9, _ and -
        name: Name,
        /// DNS names and IP addresses under which a server is reached, beyond localhost, this
        /// machine's name and its own
        #[arg(long, value_delimiter = ',', value_name = "NAME|ADDRESS")]
        san: Vec<San>,
        /// Days of validity, at most until the authority ends [default: 397 for servers, 365 for
        /// clients, 1825 for nodes]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
        /// The kind of key to make
        #[arg(long, value_enum, default_value_t, value_name = "KIND")]
        key_type: KeyType,
        /// Certifies the key of this certification request (PEM); the key stays where it is
        #[arg(long, value_name = "FILE", conflicts_with = "key_type")]
        csr: Option<PathBuf>,
        /// Writes identity.p12 too: certificate, key and authority in one file (PKCS#12) for phones
        /// and browsers, under a password
        #[arg(long, conflicts_with = "csr")]
        p12: bool,
        /// File whose first line is that password; without one, it is asked for at the terminal
        #[arg(long, value_name = "FILE", requires = "p12")]
        p12_password_file: Option<PathBuf>,
        /// Open descriptor to read that password from
        #[arg(
            long,
            value_name = "NUMBER",
            requires = "p12",
            conflicts_with = "p12_password_file"
        )]
        p12_password_fd: Option<u32>,
        /// The user, or their number, to whom the files are given; renewing keeps them so
        #[arg(long, value_name = "USER", value_parser = certs::user)]
        owner: Option<u32>,
        /// The group, or its number, of a service that may read them too; renewing keeps it so
        #[arg(long, value_name = "GROUP", value_parser = certs::group)]
        group: Option<u32>,
        /// Replaces a certificate that exists
        #[arg(long)]
        force: bool,
    },
    /// Makes all certificates of a set, and renews those that expire
    Bundle {
        /// Which set
        #[arg(value_enum)]
        set: Set,
        /// DNS names and IP addresses under which the bus is reached, beyond the usual ones
        #[arg(long, value_delimiter = ',', value_name = "NAME|ADDRESS")]
        san: Vec<San>,
    },
    /// Shows what a certificate says and until when it is valid
    Show {
        /// The name of an identity, role/name, ca, a PEM file, or a TLS server as host:port
        #[arg(value_name = "NAME|FILE|HOST:PORT")]
        what: String,
    },
    /// Lists the identities and until when their certificates are valid
    List {
        /// Only those that end within this time, as 30d or 12h, or have this share of their life
        /// behind them, as 66%
        #[arg(long, value_name = "TIME")]
        expiring: Option<Within>,
    },
    /// Checks whether a certificate would be accepted, and says why not
    Verify {
        /// A PEM file; key.pem beside a cert.pem is checked too
        file: PathBuf,
    },
    /// Makes certificates anew before they end, with the same addresses and key
    #[command(
        override_usage = "certgen renew [OPTIONS] <NAME>\n       certgen renew [OPTIONS] --all"
    )]
    Renew {
        /// The name of an identity, or role/name: renews it now, or when --within says so
        #[arg(value_name = "NAME", required_unless_present = "all")]
        who: Option<Who>,
        /// All whose time has come, and the list of revoked certificates
        #[arg(long, conflicts_with = "who")]
        all: bool,
        /// Only what ends within this time, as 30d or 12h, or has this share of its life behind
        /// it [default with --all: 66%]
        #[arg(long, value_name = "TIME")]
        within: Option<Within>,
        /// Makes new keys too
        #[arg(long)]
        rekey: bool,
    },
    /// Tells by its exit code whether a certificate should be renewed
    NeedsRenewal {
        /// The name of an identity, or role/name
        #[arg(value_name = "NAME")]
        who: Who,
        /// When it ends within this time, as 30d or 12h, or has this share of its life behind it
        /// [default: 66%]
        #[arg(long, value_name = "TIME")]
        within: Option<Within>,
    },
    /// Makes certificates void before they end, and the list that says so
    Revoke {
        /// The name of an identity, or role/name, for all its certificates; or a serial number
        #[arg(value_name = "NAME|SERIAL")]
        what: String,
        /// Why
        #[arg(long, value_enum, default_value_t)]
        reason: RevocationReason,
    },
    /// Makes the list of revoked certificates anew
    Crl {
        /// Days of validity
        #[arg(long, default_value_t = CRL_DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Copies the files of an identity into a folder, to carry them to where it runs
    Export {
        /// The name of an identity, or role/name
        #[arg(value_name = "NAME")]
        who: Who,
        /// The folder, which need not exist
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// In which form
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Puts a new authority in the place of the old one without an outage, in three stages
    #[command(after_help = ROTATION)]
    RotateCa {
        /// How far to go
        #[arg(long, value_enum)]
        stage: Stage,
        /// Finishes although certificates of the old authority are in use
        #[arg(long)]
        force: bool,
    },
    /// Keeps the keys that nodes share with the CoAP bridge for DTLS
    Psk {
        /// The file, lines of name:hex digits [default: DIR/psk]
        #[arg(long, global = true, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(subcommand)]
        command: Psk,
    },
    /// Keeps the passwords of people and programs that have no certificate
    Passwd {
        /// The file, lines of name:role:hash [default: DIR/passwd]
        #[arg(long, global = true, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(subcommand)]
        command: Passwd,
    },
    /// Prints the completions of a shell: put them where it looks for them
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages
    Man {
        /// The folder, which need not exist
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Psk {
    /// Gives a node a key, unless it has one
    Add {
        /// The node, which is also its PSK identity
        name: Name,
        /// File whose first line is the key that the node has already, in hex digits
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// Replaces the key that it has
        #[arg(long)]
        force: bool,
    },
    /// Lists the nodes that have a key
    List,
    /// Takes the key of a node away
    Remove {
        /// The node
        name: Name,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Passwd {
    /// Gives a name a role and a password, in place of those it had
    Add {
        /// What its holder is to the bus
        #[arg(value_enum)]
        role: Role,
        /// The user name
        name: Name,
        /// File whose first line is the password; without one, it is asked for at the terminal
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Open descriptor to read the password from
        #[arg(long, value_name = "NUMBER", conflicts_with = "password_file")]
        password_fd: Option<u32>,
    },
    /// Lists the names and their roles
    List,
    /// Takes the password of a name away
    Remove {
        /// The user name
        name: Name,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Set {
    /// What `nodebus up` and compose need: bus, bridges, dashboard, an operator and a viewer
    Quickstart,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_help_is_a_command() {
        let examples: Vec<&str> = EXAMPLES.lines().skip(1).collect();
        assert!(examples.len() > 4);
        for line in examples {
            let command = line.trim().split("   ").next().unwrap();
            let parsed = Args::try_parse_from(command.split_whitespace());
            assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn help_begins_with_examples() {
        let help = Args::command().render_help().to_string();
        let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text}: {help}"));
        assert!(at("Examples:") < at("Usage:"));
        assert!(at("Usage:") < at("--dir"));
        assert!(at("CERTGEN_DIR") < at("Exit codes"));
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_done() {
        for line in [
            "certgen issue king a",
            "certgen issue viewer Alice",
            "certgen issue broker bus --san localhost:8883",
            "certgen issue viewer a --days 0",
            "certgen bundle everything",
            "certgen show",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
