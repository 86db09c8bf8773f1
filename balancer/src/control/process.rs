//! What belongs to the process as a whole: pid file, background, user, open files, signals to another process.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use chassis::listen::OpenFiles;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{
    AccessFlags, Gid, Pid, Uid, access, chown, daemon, fchown, geteuid, initgroups, setgid, setuid,
};

use crate::cli::Order;
use crate::conf::error::system;
use crate::conf::settings::{Main, User};

pub fn signal(pid_file: &Path, order: Order) -> Result<(), String> {
    let pid = read_pid_file(pid_file)?;
    let signal = match order {
        Order::Stop => Signal::SIGTERM,
        Order::Quit => Signal::SIGQUIT,
        Order::Reload => Signal::SIGHUP,
        Order::Reopen => Signal::SIGUSR1,
    };
    kill(Pid::from_raw(pid), signal).map_err(|error| format!("kill({pid}, {signal}) failed ({error})"))
}

pub fn read_pid_file(path: &Path) -> Result<i32, String> {
    let text = std::fs::read_to_string(path).map_err(|error| system("open", path, &error))?;
    let pid = text.trim().parse().ok().filter(|pid: &i32| *pid > 0);
    pid.ok_or_else(|| format!("invalid PID number \"{}\" in \"{}\"", text.trim(), path.display()))
}

/// Written beside and moved into place: who reads it never finds half of it. In a folder that is not for our user, into
/// the file that was reserved.
pub fn write_pid_file(path: &Path) -> Result<(), String> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let text = format!("{}\n", std::process::id());
    let written = match std::fs::write(&beside, &text) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => std::fs::write(path, &text),
        written => written.and_then(|()| std::fs::rename(&beside, path)),
    };
    written.map_err(|error| system("open", path, &error))
}

/// /run is root's: a file there has to be made before we become somebody else.
fn reserve_pid_file(path: &Path, owner: Uid, group: Gid) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    Ok(fchown(&file, Some(owner), Some(group))?)
}

pub fn remove_pid_file(path: &Path) {
    // Another process may have taken the file over in the meantime.
    if read_pid_file(path).is_ok_and(|pid| u32::try_from(pid) == Ok(std::process::id())) {
        let gone = std::fs::remove_file(path);
        // In a folder that is not for our user it stays, and names nobody.
        let _ = gone.or_else(|_| std::fs::write(path, ""));
    }
}

/// Goes to the background and becomes another user, as the configuration says. Before any thread is started. Who takes
/// over from a process is where that process was.
pub fn settle(main: &Main, is_successor: bool) -> Result<(), String> {
    if main.daemon && !is_successor {
        daemon(true, false).map_err(|error| format!("daemon() failed ({error})"))?;
    }
    // As nginx: before root becomes somebody who may not. Threads that are started later take it over.
    if let Some(priority) = main.worker_priority
        && let Err(error) = rustix::process::setpriority_process(None, priority)
    {
        tracing::error!(alert = true, "setpriority({priority}) failed ({error})");
    }
    if geteuid().is_root()
        && let Some(user) = &main.user
    {
        become_user(user, &main.pid)?;
    }
    Ok(())
}

/// What bodies are to be written to later, while it can still be refused. Root makes it for whom workers run as.
pub fn make_folders(folders: &[Arc<Path>], user: Option<&User>) -> Result<(), String> {
    let owner = user.filter(|_| geteuid().is_root()).map(ids).transpose()?;
    for folder in folders {
        let is_new = !folder.exists();
        std::fs::create_dir_all(folder).map_err(|error| system("mkdir", folder, &error))?;
        if let Some((owner, group)) = owner
            && (is_new || std::fs::metadata(folder).is_ok_and(|folder| folder.uid() != owner.as_raw()))
        {
            let given = chown(&**folder, Some(owner), Some(group));
            given.map_err(|errno| system("chown", folder, &errno.into()))?;
        }
        access(&**folder, AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|errno| system("open", folder, &errno.into()))?;
    }
    Ok(())
}

fn ids(user: &User) -> Result<(Uid, Gid), String> {
    let known = nix::unistd::User::from_name(&user.name).ok().flatten();
    let known = known.ok_or_else(|| format!("user \"{}\" is not known on this machine", user.name))?;
    let group = match &user.group {
        None => known.gid,
        Some(name) => {
            let group = nix::unistd::Group::from_name(name).ok().flatten();
            group.ok_or_else(|| format!("group \"{name}\" is not known on this machine"))?.gid
        }
    };
    Ok((known.uid, group))
}

fn become_user(user: &User, pid_file: &Path) -> Result<(), String> {
    let (uid, group) = ids(user)?;
    reserve_pid_file(pid_file, uid, group).map_err(|error| system("open", pid_file, &error))?;
    let name = std::ffi::CString::new(user.name.as_bytes()).map_err(|error| error.to_string())?;
    let done = initgroups(&name, group).and_then(|()| setgid(group)).and_then(|()| setuid(uid));
    done.map_err(|error| format!("becoming user \"{}\" failed ({error})", user.name))
}

/// `worker_rlimit_nofile`, or as many as may be had.
pub fn open_files(wanted: Option<u64>) -> io::Result<OpenFiles> {
    let Some(wanted) = wanted else { return chassis::listen::raise_open_files() };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Above the hard limit only root may go.
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)?;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(OpenFiles { soft, hard })
}
