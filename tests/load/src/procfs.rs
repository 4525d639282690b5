//! What Linux says about another process: its CPU time and its memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;

/// A process that is watched while it is under load.
pub struct Process {
    directory: PathBuf,
    clock: Clock,
}

/// Where a process's CPU time is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// `task/*/schedstat`: nanoseconds, thread by thread. A thread that ends takes its share along,
    /// which is no matter for a proxy whose workers live as long as it does.
    Schedstat,
    /// `stat`: ticks of 10 ms, for kernels without the former.
    Stat,
}

/// `USER_HZ`, in which `stat` counts: 100 on every architecture that this runs on.
const TICK: Duration = Duration::from_millis(10);

impl Process {
    pub fn new(pid: u32) -> Result<Self, Error> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        // A process that runs has used some time: all zeros is a kernel that does not count.
        let clock = match schedstat(&directory) {
            Ok(time) if !time.is_zero() => Clock::Schedstat,
            _ => Clock::Stat,
        };
        let process = Self { directory, clock };
        process.cpu_time()?;
        Ok(process)
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// User and system time of all threads since the process began.
    pub fn cpu_time(&self) -> Result<Duration, Error> {
        match self.clock {
            Clock::Schedstat => schedstat(&self.directory),
            Clock::Stat => stat(&self.directory),
        }
    }

    /// Resident memory.
    pub fn rss_kb(&self) -> Result<u64, Error> {
        let path = self.directory.join("status");
        read(&path)?
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse().ok())
            .ok_or_else(|| unexpected(&path))
    }
}

impl Clock {
    pub fn name(self) -> &'static str {
        match self {
            Self::Schedstat => "schedstat",
            Self::Stat => "stat",
        }
    }
}

fn schedstat(directory: &Path) -> Result<Duration, Error> {
    let tasks = directory.join("task");
    let doing = || format!("cannot read {}", tasks.display());
    let mut total = Duration::ZERO;
    for entry in fs::read_dir(&tasks).map_err(Error::io(doing()))? {
        let path = entry.map_err(Error::io(doing()))?.path().join("schedstat");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // The thread ended after the directory was read.
            Err(_) if !path.parent().is_some_and(Path::exists) => continue,
            Err(error) => return Err(Error::io(format!("cannot read {}", path.display()))(error)),
        };
        let time = text.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
        total += Duration::from_nanos(time.ok_or_else(|| unexpected(&path))?);
    }
    Ok(total)
}

fn stat(directory: &Path) -> Result<Duration, Error> {
    let path = directory.join("stat");
    let ticks = stat_ticks(&read(&path)?).ok_or_else(|| unexpected(&path))?;
    Ok(TICK * ticks)
}

/// utime and stime: the 14th and 15th field. The second is the program's name in parentheses, which may
/// itself have spaces and parentheses in it.
fn stat_ticks(stat: &str) -> Option<u32> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let utime: u32 = fields.next()?.parse().ok()?;
    let stime: u32 = fields.next()?.parse().ok()?;
    utime.checked_add(stime)
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::io(format!("cannot read {}", path.display())))
}

fn unexpected(path: &Path) -> Error {
    Error::Failed(format!("{} is not as expected", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_an_odd_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 70 30 9 9 20 0 1 0";
        assert_eq!(stat_ticks(stat), Some(100));
        assert_eq!(stat_ticks("42 (short) S 1"), None);
    }

    #[test]
    fn this_process_can_be_watched() {
        let process = Process::new(std::process::id()).expect("we are running");
        let before = process.cpu_time().expect("we are running");
        assert!(process.cpu_time().expect("we are running") >= before);
        assert!(process.rss_kb().expect("we are running") > 100);
        assert!(stat(&process.directory).is_ok());
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Above the largest possible PID.
        assert!(Process::new(u32::MAX).is_err());
    }
}
