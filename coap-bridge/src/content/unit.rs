//! Units of SenML in the spelling that the bus has.

/// Text from firmwares says `°C`, and so do people and Home Assistant; SenML says `Cel` (RFC 8428
/// section 12.1). Units that are not here are spelled alike.
const SPELLING: [(&str, &str); 11] = [
    ("Cel", "°C"),
    ("%RH", "%"),
    ("%EL", "%"),
    ("Ohm", "Ω"),
    ("m2", "m²"),
    ("m3", "m³"),
    ("m/s2", "m/s²"),
    ("m3/s", "m³/s"),
    ("W/m2", "W/m²"),
    ("lat", "°"),
    ("lon", "°"),
];

/// The unit as the bus spells it.
pub(super) fn spelled(unit: &str) -> String {
    let found = SPELLING.iter().find(|(senml, _)| *senml == unit);
    found.map_or(unit, |(_, ours)| ours).to_owned()
}
