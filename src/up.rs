//! `nodebus up`: every part in one process, joined over loopback by mTLS MQTT as they are over a
//! network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use bus::admin::Admin;
use bus::session::BusUrl;
use bus::shutdown::Shutdown;
use certs::{Outcome, Passphrase, Renewal, Surroundings, Within};

use crate::part::Part;
use crate::process::{Failure, Process, say};
use crate::settings::{Settings, SourceArgs};
use crate::{part, simulate};

/// How long the parts may take to reach each other.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at what is to be renewed; certificates are due when a third of their life is
/// left, months.
const RENEW: Duration = Duration::from_secs(12 * 60 * 60);

/// `nodebus up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where certificates and state are kept; made when it is not there
    #[arg(long, value_name = "DIR", default_value = "./data")]
    data: PathBuf,
    /// Attach simulated nodes of every kind
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    sources: SourceArgs,
}

/// What the parts got.
struct Addresses {
    mqtts: SocketAddr,
    mqtt: Option<SocketAddr>,
    coap: SocketAddr,
    ws: SocketAddr,
    dashboard: dashboard_gw::Started,
}

/// Runs everything until it is told to stop.
pub(crate) async fn run(args: Args, process: Process) -> Result<(), Failure> {
    let Args {
        data,
        demo,
        sources,
    } = args;
    let settings = sources.load(defaults(&data), Vec::new(), &Part::ALL)?;
    make_data_folder(&data)?;
    make_pki(&data, &settings)?;
    part::serve_admin(&settings, &process).await?;

    let base = settings.bus.base.clone();
    let [edge, gateway, broker] = [(); 3].map(|()| process.shutdown.child());
    let started = start(settings, &process.admin, [&edge, &gateway, &broker]).await?;
    edge.spawn(renew(data.join("pki"), edge.clone()));
    if demo {
        let options = simulate::Options::demo(started.coap, started.ws);
        simulate::start(&options, &edge).context("the simulated nodes can't be started")?;
    }
    tokio::select! {
        ready = ready(&process.admin) => {
            ready?;
            say(greeting(&data, &started, &process.admin, base.as_str()));
        }
        () = process.shutdown.stopping() => {}
    }
    // Nodes and bridges leave first, so that what they say last still reaches everybody.
    process.run(vec![edge, gateway, broker]).await
}

/// What `nodebus up` takes unless told otherwise.
pub(crate) fn defaults(data: &Path) -> Settings {
    let mut settings = Settings::default();
    let pki = data.join("pki");
    settings.bus.pki = pki.join("broker/bus");
    settings.bus.data = Some(data.join("bus"));
    settings.bus.plain_listen = Some(SocketAddr::from(([127, 0, 0, 1], 1883)));
    settings.bus.anonymous = Some(bus_broker::Role::Viewer);
    // Who made the first password wants to use it.
    let passwords = pki.join("passwd");
    if passwords.is_file() {
        settings.bus.passwords = Some(passwords);
        settings.bus.password_listen = Some(any(8884));
        settings.bus.wss_listen = Some(any(8084));
    }
    settings.coap_bridge.pki = pki.join("bridge/coap");
    // Neither has to be there: the first key, or certificate for nodes, may be made later.
    settings.coap_bridge.psk = Some(pki.join("psk"));
    settings.coap_bridge.dtls_pki = Some(pki.join("coap-server/coap"));
    settings.coap_bridge.data = Some(data.join("coap"));
    settings.ws_bridge.data = Some(data.join("ws"));
    settings.ws_bridge.pki = pki.join("bridge/ws");
    settings.dashboard_gw.pki = pki.join("dashboard/dashboard");
    settings
}

/// A port at all addresses of this machine.
fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

fn make_data_folder(data: &Path) -> Result<(), Failure> {
    let remedy = || {
        format!(
            "the data folder {} can't be written: make it writable, or choose another with --data",
            data.display()
        )
    };
    std::fs::create_dir_all(data).with_context(remedy)?;
    let probe = data.join(".writable");
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(remedy)?;
    Ok(())
}

fn make_pki(data: &Path, settings: &Settings) -> Result<(), Failure> {
    let pki = data.join("pki");
    let is_new = !pki.exists();
    let listen = settings.bus.listen.ip();
    let names = if listen.is_unspecified() {
        Vec::new()
    } else {
        vec![listen.to_string()]
    };
    let bundle = certs::quickstart(&pki, &names)
        .with_context(|| format!("the certificates in {} can't be made", pki.display()))?;
    for one in bundle.issued {
        if one.outcome == Outcome::Revoked {
            let certs::Identity { role, name } = one.identity;
            tracing::warn!(
                "the certificate of {role}/{name} was revoked and stays so: \
                 `certgen issue {role} {name} --force` makes a new one"
            );
        }
    }
    if is_new {
        tracing::info!(folder = %pki.display(), "made a certificate authority and certificates for all parts");
    }
    Ok(())
}

/// Renews certificates in time, as the timer of systemd does where the parts run alone; the parts
/// take them up by themselves.
async fn renew(pki: PathBuf, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(RENEW) => {}
            () = shutdown.stopping() => return,
        }
        let folder = pki.clone();
        let renewing = tokio::task::spawn_blocking(move || {
            certs::Pki::new(folder)
                .with_passphrase(Passphrase::unattended())
                .renew_all(
                    Within::default(),
                    false,
                    &mut Surroundings::of_this_machine(),
                )
        });
        match renewing.await {
            Ok(Ok(renewals)) => renewals.iter().for_each(tell),
            Ok(Err(error)) => tracing::error!(error = chain(&error), "nothing can be renewed"),
            Err(_) => tracing::error!("renewing the certificates failed"),
        }
    }
}

fn tell(renewal: &Renewal) {
    let who = &renewal.identity;
    match &renewal.result {
        Ok(issued) if issued.outcome == Outcome::Unchanged => {}
        Ok(_) => tracing::info!(identity = %who, "renewed a certificate"),
        Err(error) => {
            tracing::error!(identity = %who, error = chain(error), "a certificate can't be renewed");
        }
    }
}

fn chain(error: &certs::Error) -> &(dyn std::error::Error + 'static) {
    error
}

async fn start(
    settings: Settings,
    admin: &Admin,
    [edge, gateway, broker]: [&Shutdown; 3],
) -> Result<Addresses, Failure> {
    let Settings {
        bus,
        mut coap_bridge,
        mut ws_bridge,
        mut dashboard_gw,
        ..
    } = settings;
    let base = bus.base.clone();
    let bus = bus_broker::start(bus, admin, broker).await.context("bus")?;
    let url = own_bus(bus.mqtts);
    coap_bridge.bus = url.clone();
    coap_bridge.base = base.clone();
    let coap = coap_bridge::start(coap_bridge, admin, edge)
        .await
        .context("coap-bridge")?;
    ws_bridge.bus = url.clone();
    ws_bridge.base = base.clone();
    let ws = ws_bridge::start(ws_bridge, admin, edge)
        .await
        .context("ws-bridge")?;
    dashboard_gw.bus = url;
    dashboard_gw.base = base;
    dashboard_gw.demo_command = demo_command(coap.address, ws.address);
    if dashboard_gw.coap_address.is_empty() {
        dashboard_gw.coap_address = reachable(coap.address).to_string();
    }
    let gateway = dashboard_gw::start(dashboard_gw, admin, gateway)
        .await
        .context("dashboard-gw")?;
    Ok(Addresses {
        mqtts: bus.mqtts,
        mqtt: bus.mqtt,
        coap: coap.address,
        ws: ws.address,
        dashboard: gateway,
    })
}

/// The bus of this process, under a name that is in its certificate.
fn own_bus(address: SocketAddr) -> BusUrl {
    let ip = address.ip();
    let host = if ip.is_unspecified() {
        "localhost".to_owned()
    } else {
        ip.to_string()
    };
    BusUrl {
        tls: true,
        host,
        port: address.port(),
    }
}

async fn ready(admin: &Admin) -> Result<(), Failure> {
    let poll = async {
        while !admin.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, poll).await.map_err(|_| {
        anyhow!("the parts did not reach the bus within {START_TIMEOUT:?}: see the log above for why")
    })?;
    Ok(())
}

/// An address as a person on this machine would type it.
fn local(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

/// An address as another machine would reach it, as far as can be told.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Connecting a UDP socket sends nothing; it only has the system choose the source address.
    let chosen = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket
                .connect((Ipv4Addr::new(192, 0, 2, 1), 9))
                .map(|()| socket)
        })
        .and_then(|socket| socket.local_addr());
    SocketAddr::new(
        chosen.map_or(local(address).ip(), |own| own.ip()),
        address.port(),
    )
}

fn demo_command(coap: SocketAddr, ws: SocketAddr) -> String {
    let binary = std::env::args()
        .next()
        .unwrap_or_else(|| "nodebus".to_owned());
    let mut command = format!("{binary} simulate --coap 3 --ws 1");
    if coap.port() != 5683 {
        command = format!("{command} --coap-server {}", local(coap));
    }
    if ws.port() != 8083 {
        command = format!("{command} --ws-server ws://{}/node", local(ws));
    }
    command
}

fn greeting(data: &Path, at: &Addresses, admin: &Admin, base: &str) -> String {
    let mut lines = vec![
        String::new(),
        format!("nodebus {} is up", env!("CARGO_PKG_VERSION")),
        String::new(),
    ];
    for listener in admin.listeners() {
        let suffix = match (listener.name, listener.scheme) {
            ("WebSocket nodes", _) => "/node",
            (_, "http" | "https") => "/",
            _ => "",
        };
        lines.push(format!(
            "  {:<18} {}://{}{suffix}",
            listener.name, listener.scheme, listener.address
        ));
    }
    let watch = match at.mqtt {
        Some(plain) => format!(
            "mosquitto_sub -h {} -p {} -v -t '{base}/#'",
            plain.ip(),
            plain.port()
        ),
        None => {
            let pki = data.join("pki/viewer/viewer");
            let file = |name: &str| pki.join(name).display().to_string();
            format!(
                "mosquitto_sub -h localhost -p {} --cafile {} --cert {} --key {} -v -t '{base}/#'",
                at.mqtts.port(),
                file("ca.pem"),
                file("cert.pem"),
                file("key.pem")
            )
        }
    };
    lines.extend([
        String::new(),
        format!(
            "  Look at your nodes:   {}://{}/",
            at.dashboard.scheme,
            local(at.dashboard.address)
        ),
        format!("  Watch the readings:   {watch}"),
        format!("  Attach test nodes:    {}", demo_command(at.coap, at.ws)),
        "  Stop:                 Ctrl-C".to_owned(),
        String::new(),
    ]);
    lines.join("\n")
}
