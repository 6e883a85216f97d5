//! Clients with a name and password: who gets in, who doesn't, and who has to leave again.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;

use bus_broker::{Config, Role};
use certs::Passphrase;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Options, Raw, TestBroker, TlsClient, authority, start};

/// What certgen writes.
pub(crate) struct File(TempDir);

impl File {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.0.path().join("passwd")
    }

    pub(crate) fn add(&self, role: certs::Role, name: &str, password: &str) {
        let secret = self.0.path().join("secret");
        std::fs::write(&secret, password).unwrap();
        let secret = Passphrase::from_file(secret);
        let mut random = StdRng::seed_from_u64(1);
        let name = name.parse().unwrap();
        certs::add_password(&self.path(), role, &name, &secret, &mut random).unwrap();
    }

    fn remove(&self, name: &str) {
        certs::remove_login(&self.path(), &name.parse().unwrap()).unwrap();
    }
}

pub(crate) fn with_passwords(config: &mut Config, file: &Path) {
    config.passwords = Some(file.to_owned());
    config.password_listen = Some("127.0.0.1:0".parse().unwrap());
}

async fn broker(file: &File, edit: impl FnOnce(&mut Config)) -> TestBroker {
    let edit = |config: &mut Config| {
        with_passwords(config, &file.path());
        edit(config);
    };
    start(Role::Viewer, authority(), None, edit).await
}

impl TestBroker {
    fn password(&self) -> SocketAddr {
        self.started.password.unwrap()
    }

    /// A TLS connection to the listener for passwords.
    async fn stranger(&self) -> Raw<TlsClient> {
        let tcp = TcpStream::connect(self.password()).await.unwrap();
        Raw::new(self.tls_over(tcp, None).await.unwrap())
    }

    async fn try_login(
        &self,
        level: u8,
        id: &str,
        login: Option<(&'static str, &'static str)>,
    ) -> (Raw<TlsClient>, u8) {
        let mut client = self.stranger().await;
        let options = Options {
            login,
            ..Options::default()
        };
        let connack = client.try_connect(level, id, &options).await;
        (client, connack[1])
    }

    pub(crate) async fn login(
        &self,
        id: &str,
        name: &'static str,
        password: &'static str,
    ) -> Raw<TlsClient> {
        let (client, code) = self.try_login(5, id, Some((name, password))).await;
        assert_eq!(code, 0, "{name} is refused");
        client
    }
}

#[tokio::test]
async fn a_name_and_its_password_give_the_role_of_the_file() {
    let file = File::new();
    file.add(certs::Role::Operator, "ann", "ann's secret");
    file.add(certs::Role::Viewer, "bob", "bob's secret");
    let broker = broker(&file, |_| {}).await;
    for level in [4, 5] {
        let (mut ann, code) = broker
            .try_login(level, "ann", Some(("ann", "ann's secret")))
            .await;
        assert_eq!(code, 0);
        ann.publish(level, "b/nodes/n/res/led/set", b"1", 1, 1, false)
            .await;
        assert_eq!(ann.packet().await.0, 0x40);
        let (mut bob, code) = broker
            .try_login(level, "bob:phone", Some(("bob", "bob's secret")))
            .await;
        assert_eq!(code, 0);
        assert_eq!(bob.subscribe(level, 1, "b/#", 1).await, 1);
        if level == 5 {
            bob.publish(5, "b/nodes/n/res/led/set", b"1", 1, 1, false)
                .await;
            assert_eq!(bob.packet().await.1[..3], [0, 1, 0x87]);
        }
    }
    // The Client Identifier is bound to the name, as with a certificate.
    let wrong = broker
        .try_login(5, "bob", Some(("ann", "ann's secret")))
        .await;
    assert_eq!(wrong.1, 0x85);
    let mut unnamed = broker.stranger().await;
    let options = Options {
        login: Some(("ann", "ann's secret")),
        ..Options::default()
    };
    let connack = unnamed.try_connect(5, "", &options).await;
    assert!(connack.windows(4).any(|w| w == b"ann:"));
}

#[tokio::test]
async fn who_knows_no_password_is_refused_the_same_way_whoever_it_claims_to_be() {
    let file = File::new();
    file.add(certs::Role::Operator, "ann", "secret");
    let broker = broker(&file, |_| {}).await;
    let mut admin = broker.role(Role::Admin, "admin").await;
    admin.subscribe(5, 1, "b/events", 0).await;
    for login in [
        Some(("ann", "wrong")),
        Some(("ann", "")),
        Some(("eve", "secret")),
        Some(("", "")),
        None,
    ] {
        for (level, refused) in [(4, 4), (5, 0x86)] {
            let (mut client, code) = broker.try_login(level, "ann", login).await;
            assert_eq!(code, refused, "{login:?}");
            client.closed().await;
        }
    }
    assert!(broker.metric("bus_broker_refused_total", "password") >= 10.0);
    // A name that is not there costs a check like one that is.
    assert_eq!(broker.metric("bus_broker_logins_total", "wrong"), 8.0);
    let event: serde_json::Value = serde_json::from_slice(&admin.message().await.payload).unwrap();
    assert_eq!(event["type"], "auth_failed");
    assert_eq!(event["reason"], "password");
    assert_eq!(event["identity"], "127.0.0.1");
    assert_eq!(event["asked_for"], "ann");
    // Without TLS, nobody gets more than the role of that listener for a password.
    let mut plain = broker.tcp().await;
    let options = Options {
        login: Some(("ann", "secret")),
        ..Options::default()
    };
    plain.connect(5, "ann", &options).await;
    plain
        .publish(5, "b/nodes/n/res/led/set", b"1", 1, 1, false)
        .await;
    assert_eq!(plain.packet().await.1[..3], [0, 1, 0x87]);
}

#[tokio::test]
async fn a_changed_or_removed_password_ends_its_connections_only() {
    let file = File::new();
    for name in ["ann", "bob", "eve"] {
        file.add(certs::Role::Viewer, name, "secret");
    }
    let broker = broker(&file, |_| {}).await;
    let mut ann = broker.login("ann", "ann", "secret").await;
    let mut bob = broker.login("bob", "bob", "secret").await;
    let mut eve = broker.login("eve", "eve", "secret").await;
    let mut certified = broker.tls(Some("urn:nodebus:viewer:eve")).await.unwrap();
    certified.connect(5, "eve:2", &Options::default()).await;

    // What can't be read changes nothing.
    let whole = std::fs::read(file.path()).unwrap();
    std::fs::write(file.path(), "rubbish").unwrap();
    let reloads = "bus_broker_reloads_total";
    let kept = "what=\"passwords\",result=\"kept\"";
    broker.metric_reaches(reloads, kept, 1.0).await;
    assert_eq!(eve.ping().await, []);
    std::fs::write(file.path(), whole).unwrap();

    file.remove("eve");
    assert_eq!(eve.closed().await, Some(0x87));
    file.add(certs::Role::Viewer, "bob", "another");
    assert_eq!(bob.closed().await, Some(0x87));
    assert_eq!(ann.ping().await, []);
    assert_eq!(certified.ping().await, []);
    let (_, code) = broker.try_login(5, "eve", Some(("eve", "secret"))).await;
    assert_eq!(code, 0x86);
    let (_, code) = broker.try_login(5, "bob", Some(("bob", "secret"))).await;
    assert_eq!(code, 0x86);
    broker.login("bob", "bob", "another").await;
    // A role takes effect as a password does.
    file.add(certs::Role::Operator, "ann", "secret");
    assert_eq!(ann.closed().await, Some(0x87));
}

#[tokio::test]
async fn a_crowd_that_comes_back_costs_one_check_for_each_name() {
    let file = File::new();
    file.add(certs::Role::Viewer, "ann", "secret");
    let broker = broker(&file, |_| {}).await;
    broker.login("ann", "ann", "secret").await;
    let logins = "bus_broker_logins_total";
    let ids: Vec<_> = (0..100).map(|i| format!("ann:{i}")).collect();
    let crowd = ids.iter().map(|id| broker.login(id, "ann", "secret"));
    let mut crowd = futures_util::future::join_all(crowd).await;
    for client in &mut crowd {
        assert_eq!(client.ping().await, []);
    }
    assert_eq!(broker.metric(logins, "\"ok\""), 1.0);
    assert_eq!(broker.metric(logins, "recalled"), 100.0);
    // Another password isn't recalled, however often it comes.
    for _ in 0..2 {
        let (_, code) = broker.try_login(5, "ann", Some(("ann", "secre"))).await;
        assert_eq!(code, 0x86);
    }
    assert_eq!(broker.metric(logins, "wrong"), 2.0);
}

#[tokio::test]
async fn who_guesses_is_not_listened_to_and_others_are() {
    let file = File::new();
    file.add(certs::Role::Viewer, "ann", "secret");
    file.add(certs::Role::Viewer, "bob", "secret");
    let broker = broker(&file, |config| {
        config.limits.failed_logins_per_minute = NonZeroU32::new(3).unwrap();
    })
    .await;
    broker.login("bob", "bob", "secret").await;
    for _ in 0..3 {
        let (_, code) = broker.try_login(5, "ann", Some(("ann", "guess"))).await;
        assert_eq!(code, 0x86);
    }
    for (level, refused) in [(4, 3), (5, 0x9f)] {
        let (_, code) = broker
            .try_login(level, "ann", Some(("ann", "secret")))
            .await;
        assert_eq!(
            code, refused,
            "the right guess is no better than a wrong one"
        );
    }
    let logins = "bus_broker_logins_total";
    assert_eq!(broker.metric(logins, "too_many_failures"), 2.0);
    // Who was here before comes back even from the same address.
    broker.login("bob", "bob", "secret").await;
    // And anybody from another.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let tcp = socket.connect(broker.password()).await.unwrap();
    let mut elsewhere = Raw::new(broker.tls_over(tcp, None).await.unwrap());
    let options = Options {
        login: Some(("ann", "secret")),
        ..Options::default()
    };
    elsewhere.connect(5, "ann", &options).await;
}

#[tokio::test]
async fn passwords_are_checked_a_few_at_a_time() {
    let file = File::new();
    file.add(certs::Role::Viewer, "ann", "secret");
    let broker = broker(&file, |config| {
        config.limits.password_checks = 1;
        config.limits.failed_logins_per_minute = NonZeroU32::MAX;
    })
    .await;
    let guesses = (0..20).map(|_| broker.try_login(5, "ann", Some(("ann", "guess"))));
    let guesses = futures_util::future::join_all(guesses);
    // Those that wait are the ones beyond the bound.
    let (guesses, ()) = tokio::join!(
        guesses,
        broker.metric_reaches("bus_broker_waiting_logins", "", 2.0)
    );
    assert!(guesses.iter().all(|(_, code)| *code == 0x86));
    assert_eq!(broker.metric("bus_broker_waiting_logins", ""), 0.0);
}

#[tokio::test]
async fn a_file_of_passwords_that_can_not_be_used_is_named() {
    let file = File::new();
    let attempt = async |edit: fn(&mut Config)| {
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..Config::default()
        };
        with_passwords(&mut config, &file.path());
        edit(&mut config);
        let pki = start(Role::Viewer, authority(), None, |_| {}).await.pki;
        config.pki = pki.path().to_owned();
        let (admin, shutdown) = (bus::admin::Admin::default(), bus::shutdown::Shutdown::new());
        let failed = bus_broker::start(config, &admin, &shutdown).await;
        failed.unwrap_err().to_string()
    };
    let gone = attempt(|_| {}).await;
    assert!(
        gone.contains("passwd") && gone.contains("certgen"),
        "{gone}"
    );
    std::fs::write(file.path(), "ann:viewer:plain text\n").unwrap();
    let wrong = attempt(|_| {}).await;
    assert!(
        wrong.contains("line 1") && wrong.contains("certgen"),
        "{wrong}"
    );
    assert!(!wrong.contains("plain text"), "{wrong}");
}
