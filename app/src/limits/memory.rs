//! The memory that the process may still allocate on the host, by the limits that the system sets.

use std::path::{Path, PathBuf};

/// Bytes that this process may still allocate: the least that a control group (v1 or v2) or `ulimit -v` leaves. `None`
/// without a limit.
pub fn room() -> Option<usize> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = groups.lines().filter_map(|line| group(line, Path::new("/sys/fs/cgroup"))).flatten();
    groups.chain(address_space()).min()
}

/// The bytes that each group of a line of /proc/self/cgroup leaves, from the group itself up to the root.
fn group(line: &str, root: &Path) -> Option<Vec<usize>> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (base, limit, used) = match controllers {
        "" => (root.to_path_buf(), "memory.max", "memory.current"),
        names if names.split(',').any(|name| name == "memory") => {
            (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
        }
        _ => return None,
    };
    let inside = base.join(path.trim_start_matches('/'));
    let up: Vec<PathBuf> = inside.ancestors().take_while(|folder| folder.starts_with(&base)).map(Into::into).collect();
    Some(up.iter().filter_map(|folder| left(folder, limit, used)).collect())
}

/// The limit of a group, less what it uses. Its cache of files counts as free: the system drops it first.
fn left(folder: &Path, limit: &str, used: &str) -> Option<usize> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<usize>().ok();
    // `max` and numbers above any memory stand for the absence of a limit.
    let limit = number(limit).filter(|bytes| *bytes < 1 << 60)?;
    let statistics = read("memory.stat").unwrap_or_default();
    let cache = |name: &str| statistics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok());
    let cached = cache("inactive_file ").unwrap_or(0) + cache("active_file ").unwrap_or(0);
    Some(limit.saturating_sub(number(used).unwrap_or(0).saturating_sub(cached)))
}

/// The bytes that `ulimit -v` leaves.
fn address_space() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit = line.split_whitespace().next()?.parse::<usize>().ok()?;
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let used = pages.split_whitespace().next()?.parse::<usize>().ok()? * 4096;
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_counts_and_the_cache_of_files_does_not() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "500\n");
        write("a/memory.max", "1000\n");
        write("a/memory.current", "700\n");
        write("a/memory.stat", "anon 300\ninactive_file 300\nactive_file 100\n");
        assert_eq!(group("0::/a/b", root.path()), Some(vec![700]));
        write("memory/x/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(group("5:memory:/x", root.path()), Some(vec![]), "no limit");
        write("memory/x/memory.limit_in_bytes", "100\n");
        write("memory/x/memory.usage_in_bytes", "130\n");
        assert_eq!(group("5:cpu,memory:/x", root.path()), Some(vec![0]));
        assert_eq!(group("4:cpu:/x", root.path()), None);
    }
}
