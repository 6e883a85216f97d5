//! A client library that others use, in both versions, over mTLS.

use std::sync::Arc;
use std::time::Duration;

use bus_broker::Role;
use rcgen::ExtendedKeyUsagePurpose;
use rumqttc::{TlsConfiguration, Transport, v5};

use crate::support::{DEADLINE, TestBroker, broker, certificate};

fn transport(broker: &TestBroker) -> Transport {
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let uri = Some("urn:nodebus:admin:lib");
    let identity = certificate(&broker.authority, uri, usage, |_| {});
    let config = broker.client_config(Some(identity));
    Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config)))
}

#[tokio::test]
async fn old_and_new_clients_talk_to_each_other() {
    let broker = broker(Role::Viewer).await;
    let port = broker.started.mqtts.port();
    let mut options = rumqttc::MqttOptions::new("lib:old", "localhost", port);
    options
        .set_transport(transport(&broker))
        .set_keep_alive(Duration::from_secs(5));
    let (old, mut old_loop) = rumqttc::AsyncClient::new(options, 10);
    let mut options = v5::MqttOptions::new("lib:new", "localhost", port);
    options
        .set_transport(transport(&broker))
        .set_keep_alive(Duration::from_secs(5));
    let (new, mut new_loop) = v5::AsyncClient::new(options, 10);

    old.subscribe("to/old", rumqttc::QoS::ExactlyOnce)
        .await
        .unwrap();
    new.subscribe("to/new", v5::mqttbytes::QoS::ExactlyOnce)
        .await
        .unwrap();
    let old_side = async {
        loop {
            use rumqttc::{Event, Packet};
            match old_loop.poll().await.unwrap() {
                Event::Incoming(Packet::SubAck(_)) => {
                    let retained = old.publish("to/new", rumqttc::QoS::ExactlyOnce, true, "hello");
                    retained.await.unwrap();
                }
                Event::Incoming(Packet::Publish(publish)) => return publish,
                _ => {}
            }
        }
    };
    let new_side = async {
        let mut answered = None;
        loop {
            use v5::mqttbytes::v5::Packet;
            match new_loop.poll().await.unwrap() {
                v5::Event::Incoming(Packet::Publish(publish)) => {
                    let qos = v5::mqttbytes::QoS::AtLeastOnce;
                    let answer = new.publish("to/old", qos, false, publish.payload.clone());
                    answer.await.unwrap();
                    answered = Some(publish);
                }
                v5::Event::Incoming(Packet::PubAck(_)) => return answered.unwrap(),
                _ => {}
            }
        }
    };
    let both = async { tokio::join!(old_side, new_side) };
    let (at_old, at_new) = tokio::time::timeout(DEADLINE, both).await.unwrap();
    assert_eq!(
        (&at_new.payload[..], at_new.qos),
        (&b"hello"[..], v5::mqttbytes::QoS::ExactlyOnce)
    );
    assert_eq!(
        (&at_old.payload[..], at_old.qos),
        (&b"hello"[..], rumqttc::QoS::AtLeastOnce)
    );
}
