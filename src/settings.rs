//! The settings of all parts, as one file holds them, and `nodebus config`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use bus::config::{Sources, load};
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::part::Part;
use crate::process::{Failure, say};
use crate::up;

/// Everything that can be set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) admin: AdminSettings,
    pub(crate) bus: bus_broker::Config,
    pub(crate) coap_bridge: coap_bridge::Config,
    pub(crate) ws_bridge: ws_bridge::Config,
    pub(crate) dashboard_gw: dashboard_gw::Config,
}

impl Settings {
    /// Says what a part would refuse when it starts.
    fn check(&self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Bus => self.bus.check()?,
            Part::CoapBridge => self.coap_bridge.check()?,
            Part::WsBridge => self.ws_bridge.check()?,
            Part::DashboardGw => self.dashboard_gw.check()?,
        }
        Ok(())
    }
}

/// Where `/healthz`, `/readyz` and `/metrics` are answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdminSettings {
    pub(crate) listen: SocketAddr,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
        }
    }
}

/// Where settings come from, on every sub-command that has any.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SourceArgs {
    /// A file with settings, in TOML
    #[arg(long, value_name = "FILE", env = "NODEBUS_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, such as coap_bridge.max_time=60s; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl SourceArgs {
    /// Reads the settings of `parts`; `flags` are those of the sub-command, and go over everything.
    pub(crate) fn load(
        self,
        defaults: Settings,
        flags: Vec<String>,
        parts: &[Part],
    ) -> Result<Settings, Failure> {
        let sources = Sources {
            file: self.config,
            flags: self.set.into_iter().chain(flags).collect(),
        };
        let checked = || -> anyhow::Result<Settings> {
            let settings: Settings = load(defaults, &sources)?;
            parts.iter().try_for_each(|part| settings.check(*part))?;
            Ok(settings)
        };
        checked()
            .context("the settings can't be used")
            .map_err(Failure::Usage)
    }
}

/// `nodebus config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says whether the settings can be used
    Check(ConfigArgs),
    /// Shows the settings in force, as a file
    Show(ConfigArgs),
}

#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// The settings as `nodebus up` has them with this data folder; without, as the parts alone do
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    sources: SourceArgs,
}

impl ConfigArgs {
    fn load(self) -> Result<Settings, Failure> {
        let defaults = self.data.as_deref().map(up::defaults);
        self.sources
            .load(defaults.unwrap_or_default(), Vec::new(), &Part::ALL)
    }
}

/// Shows or checks the settings.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Check(args) => {
            args.load()?;
            say("the settings can be used");
        }
        Command::Show(args) => {
            let settings = args.load()?;
            say(toml::to_string(&settings)
                .context("the settings can't be written")?
                .trim_end());
        }
    }
    Ok(())
}
