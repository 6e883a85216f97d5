//! The machine that the figures are from.

use std::fs;

fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim())
}

/// One line: name, processor, cores, memory, kernel, and how busy it is already.
pub(crate) fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kib: u64 = field(&memory, "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0);
    format!(
        "{}: {}, {cores} cores, {} GiB, Linux {}, load {}",
        read("/proc/sys/kernel/hostname").trim(),
        field(&cpu, "model name").unwrap_or("processor without a name"),
        kib / (1024 * 1024),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or("unknown"),
    )
}
