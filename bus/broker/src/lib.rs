//! The MQTT broker: an edge of our own around rumqttd's router.
