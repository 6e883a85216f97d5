//! One part alone in its process.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use bus::admin::Admin;
use bus::session::BusUrl;
use bus::shutdown::Shutdown;

use crate::process::{Failure, Process};
use crate::settings::{Settings, SourceArgs};

/// Which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Bus,
    CoapBridge,
    WsBridge,
    DashboardGw,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [
        Self::Bus,
        Self::CoapBridge,
        Self::WsBridge,
        Self::DashboardGw,
    ];

    fn section(self) -> &'static str {
        match self {
            Self::Bus => "bus",
            Self::CoapBridge => "coap_bridge",
            Self::WsBridge => "ws_bridge",
            Self::DashboardGw => "dashboard_gw",
        }
    }
}

/// The flags of one part; everything else is set with --set.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    /// The bus to connect to (not for `nodebus bus`), such as mqtts://bus:8883
    #[arg(long, value_name = "URL")]
    bus: Option<BusUrl>,
    /// The folder with ca.pem, cert.pem and key.pem of this part
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// Where the part listens; port 0 takes any free port
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where /healthz, /readyz and /metrics are answered
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

impl Args {
    fn flags(&self, part: Part) -> Vec<String> {
        let section = part.section();
        let mut flags = Vec::new();
        // Quoted, since a bare value may be read as something else than text.
        let mut flag = |key: &str, value: String| flags.push(format!("{key}=\"{value}\""));
        if let Some(url) = &self.bus {
            flag(&format!("{section}.bus"), url.to_string());
        }
        if let Some(pki) = &self.pki {
            flag(&format!("{section}.pki"), pki.display().to_string());
        }
        if let Some(listen) = &self.listen {
            flag(&format!("{section}.listen"), listen.to_string());
        }
        if let Some(admin) = &self.admin {
            flag("admin.listen", admin.to_string());
        }
        flags
    }
}

/// Runs the part until it is told to stop.
pub(crate) async fn run(part: Part, args: Args, process: Process) -> Result<(), Failure> {
    let flags = args.flags(part);
    let settings = args.sources.load(Settings::default(), flags, &[part])?;
    let (admin, shutdown) = (&process.admin, process.shutdown.child());
    serve_admin(&settings, &process).await?;
    start(part, settings, admin, &shutdown).await?;
    process.run(vec![shutdown]).await
}

async fn start(
    part: Part,
    settings: Settings,
    admin: &Admin,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    match part {
        Part::Bus => {
            bus_broker::start(settings.bus, admin, shutdown)
                .await
                .context("bus")?;
        }
        Part::CoapBridge => {
            coap_bridge::start(settings.coap_bridge, admin, shutdown)
                .await
                .context("coap-bridge")?;
        }
        Part::WsBridge => {
            ws_bridge::start(settings.ws_bridge, admin, shutdown)
                .await
                .context("ws-bridge")?;
        }
        Part::DashboardGw => {
            dashboard_gw::start(settings.dashboard_gw, admin, shutdown)
                .await
                .context("dashboard-gw")?;
        }
    }
    Ok(())
}

/// Opens the admin port.
pub(crate) async fn serve_admin(settings: &Settings, process: &Process) -> Result<(), Failure> {
    let address = settings.admin.listen;
    process.admin.serve(address, &process.shutdown).await.with_context(|| {
        format!(
            "the admin port {address} can't be opened: stop what uses it, or choose another with \
             --set admin.listen=127.0.0.1:0"
        )
    })?;
    Ok(())
}
