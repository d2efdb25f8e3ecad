//! How much memory of its own the process holds, as the kernel counts it.

/// Resident anonymous bytes: heap and stacks, not pages of files. `None` where the kernel does not
/// tell.
pub fn anonymous_resident() -> Option<u64> {
    // The rollup is exact; the counters in /proc/self/status lag by up to 64 pages a thread.
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    parse(&rollup)
}

fn parse(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_anonymous_line_is_read_in_bytes() {
        let rollup =
            "00400000-7fff ---p 00000000 00:00 0 [rollup]\nRss:  900 kB\nAnonymous:       128 kB\nLazyFree: 0 kB\n";
        assert_eq!(parse(rollup), Some(131_072));
        assert_eq!(parse("Rss: 1 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn touched_memory_shows() {
        // Far more than what tests beside this one take and give back meanwhile.
        const TOUCHED: usize = 512 << 20;
        let before = anonymous_resident().unwrap();
        let block = std::hint::black_box(vec![1u8; TOUCHED]);
        let after = anonymous_resident().unwrap();
        assert!(after > before + (TOUCHED / 2) as u64, "{before} {after} {}", block.len());
    }
}
