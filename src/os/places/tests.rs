use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

const NOBODY: u32 = 65534;
const SECRET: &str = "a secret of root's\n";

/// A file of root's, and a directory of another user's; `None` for those who cannot give one away.
struct World {
    top: TempDir,
    theirs: PathBuf,
    canary: PathBuf,
}

fn world() -> Option<World> {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can give a directory away");
        return None;
    }
    let top = tempfile::tempdir().expect("a directory");
    let theirs = top.path().join("theirs");
    let canary = top.path().join("canary");
    fs::create_dir(&theirs).expect("made");
    chown(&theirs, Some(NOBODY), Some(NOBODY)).expect("given away");
    fs::write(&canary, SECRET).expect("written");
    fs::set_permissions(&canary, fs::Permissions::from_mode(0o600)).expect("a mode");
    Some(World {
        top,
        theirs,
        canary,
    })
}

impl World {
    fn plants(&self, target: &Path, name: &str) -> PathBuf {
        let link = self.theirs.join(name);
        symlink(target, &link).expect("a link");
        lchown(&link, Some(NOBODY), Some(NOBODY)).expect("given away");
        link
    }

    fn canary_is_untouched(&self) {
        assert_eq!(fs::read_to_string(&self.canary).expect("there"), SECRET);
        let mode = fs::metadata(&self.canary).expect("there").mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
}

fn append(path: &Path) -> io::Result<File> {
    let (directory, name) = Directory::create_for(path)?;
    directory.append(&name, 0o640)
}

fn refused<T>(result: io::Result<T>, word: &str) {
    let error = result.err().expect("it has to be refused");
    assert!(error.to_string().contains(word), "{error}");
}

#[test]
fn a_link_in_a_directory_of_another_user_leads_root_nowhere() {
    let Some(world) = world() else { return };
    let link = world.plants(&world.canary, "w.log");
    refused(append(&link), "symbolic link");
    let dangling = world.plants(&world.top.path().join("made-by-root"), "dangling");
    refused(append(&dangling), "symbolic link");
    assert!(!world.top.path().join("made-by-root").exists());
    let above = world.plants(world.top.path(), "above");
    refused(append(&above.join("w.log")), "symbolic link");
    refused(Directory::create(&above.join("new")), "symbolic link");
    assert!(!world.top.path().join("w.log").exists() && !world.top.path().join("new").exists());
    world.canary_is_untouched();
}

#[test]
fn a_link_of_roots_in_a_directory_of_roots_is_followed() {
    let Some(world) = world() else { return };
    let far = world.top.path().join("far");
    fs::create_dir(&far).expect("made");
    symlink("far", world.top.path().join("log")).expect("a link");
    drop(append(&world.top.path().join("log/app/w.log")).expect("opened"));
    assert!(far.join("app/w.log").is_file());
    symlink(far.join("real.log"), world.top.path().join("w.log")).expect("a link");
    drop(append(&world.top.path().join("w.log")).expect("opened"));
    assert!(far.join("real.log").is_file(), "a dangling link, too");
}

#[test]
fn the_usual_directory_of_the_programs_own_user_works() {
    let Some(world) = world() else { return };
    let path = world.theirs.join("w.log");
    append(&path)
        .expect("opened")
        .write_all(b"one\n")
        .expect("written");
    append(&path)
        .expect("opened")
        .write_all(b"two\n")
        .expect("written");
    assert_eq!(fs::read_to_string(&path).expect("there"), "one\ntwo\n");
    chown(&path, Some(NOBODY), None).expect("given away");
    append(&path).expect("as after a rotation by somebody else");
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let Some(world) = world() else { return };
    let pipe = world.theirs.join("w.log");
    mkfifo(&pipe, Mode::from_bits_truncate(0o666)).expect("a pipe");
    refused(append(&pipe), "pipe");
    refused(open_to_read(&pipe), "pipe");
    // With a reader it can be opened.
    let reader = File::from(
        nix::fcntl::open(&pipe, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())
            .expect("opened"),
    );
    refused(append(&pipe), "pipe");
    drop(reader);
    fs::create_dir(world.theirs.join("d.log")).expect("made");
    refused(append(&world.theirs.join("d.log")), "directory");
    refused(read(Path::new("/dev/zero"), 100), "device");
    assert!(read(Path::new("/dev/null"), 100).expect("read").is_empty());
}

#[test]
fn a_second_name_of_a_file_of_roots_is_not_written_to_in_a_directory_of_another_user() {
    let Some(world) = world() else { return };
    let name = world.theirs.join("w.log");
    fs::hard_link(&world.canary, &name).expect("a link");
    refused(append(&name), "2 names");
    refused(open_to_read(&name), "2 names");
    world.canary_is_untouched();
    // Where only root can make one, it is as meant.
    fs::hard_link(&world.canary, world.top.path().join("second")).expect("a link");
    append(&world.top.path().join("second")).expect("opened");
}

#[test]
fn a_file_that_somebody_put_where_everybody_may_is_refused() {
    let Some(world) = world() else { return };
    let shared = world.top.path().join("tmp");
    fs::create_dir(&shared).expect("made");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).expect("a mode");
    let planted = shared.join("w.log");
    fs::write(&planted, "").expect("written");
    chown(&planted, Some(NOBODY), None).expect("given away");
    assert!(append(&planted).is_err());
    symlink(&world.canary, shared.join("link.log")).expect("a link");
    lchown(shared.join("link.log"), Some(NOBODY), None).expect("given away");
    refused(append(&shared.join("link.log")), "symbolic link");
    world.canary_is_untouched();
    drop(append(&shared.join("ours/w.log")).expect("opened"));
    let ours = Directory::open(&shared.join("ours")).expect("opened");
    assert_eq!(ours.standing(), Standing::Ours, "nobody can move it");
}

#[test]
fn a_link_of_somebodys_is_read_through_only_to_what_is_theirs() {
    let Some(world) = world() else { return };
    refused(read(&world.plants(&world.canary, "env"), 100), "not theirs");
    let release = world.theirs.join("release");
    fs::create_dir(&release).expect("made");
    fs::write(release.join("env"), "A=1\n").expect("written");
    chown(release.join("env"), Some(NOBODY), None).expect("given away");
    let current = world.plants(&release, "current");
    assert_eq!(read(&current.join("env"), 100).expect("read"), b"A=1\n");
    refused(read(&current.join("env"), 3), "longer than 3 bytes");
}

#[test]
fn a_file_is_replaced_whole_and_planted_links_are_replaced_themselves() {
    let Some(world) = world() else { return };
    world.plants(&world.canary, "state");
    world.plants(&world.canary, ".state.new");
    let directory = Directory::open(&world.theirs).expect("opened");
    let name = OsStr::new("state");
    directory.replace(name, b"new\n", 0o600).expect("replaced");
    assert_eq!(
        fs::read(world.theirs.join("state")).expect("there"),
        b"new\n"
    );
    assert_eq!(fs::read_dir(&world.theirs).expect("there").count(), 1);
    world.canary_is_untouched();
}

#[test]
fn a_socket_gets_its_mode_and_nothing_else_does() {
    let Some(world) = world() else { return };
    let directory = Directory::open(&world.theirs).expect("opened");
    let name = OsStr::new("notify.sock");
    let socket = directory.bind(name, 0o666, |path| UnixDatagram::bind(path));
    let mode = fs::symlink_metadata(world.theirs.join(name))
        .expect("there")
        .mode();
    assert_eq!(mode & 0o7777, 0o666);
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.send_to(b"x", world.theirs.join(name)).expect("sent");
    drop(socket.expect("bound"));
    directory
        .bind(name, 0o600, |path| UnixDatagram::bind(path))
        .expect("in its place");
    world.plants(&world.canary, "metrics.sock");
    let link = OsStr::new("metrics.sock");
    refused(
        directory.bind(link, 0o666, |path| UnixDatagram::bind(path)),
        "in the way",
    );
    world.canary_is_untouched();
    assert_eq!(fs::read_dir(&world.theirs).expect("there").count(), 2);
}

#[test]
fn names_that_are_swapped_all_the_time_lead_root_nowhere() {
    const ROUNDS: u32 = 10_000;
    let Some(world) = world() else { return };
    let over = AtomicBool::new(false);
    let path = world.theirs.join("d/w.log");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (kept, away) = (world.theirs.join("kept"), world.theirs.join("d"));
            fs::create_dir(&kept).expect("made");
            while !over.load(Ordering::Relaxed) {
                // The directory is one with a link, one of root's, a link itself, and gone.
                let _ = symlink(&world.canary, kept.join("w.log"));
                let _ = fs::rename(&kept, &away);
                let _ = fs::remove_file(away.join("w.log"));
                let _ = fs::hard_link(&world.canary, away.join("w.log"));
                let _ = fs::remove_file(away.join("w.log"));
                let _ = fs::rename(&away, &kept);
                let _ = symlink(world.top.path(), &away);
                let _ = fs::remove_file(&away);
                let _ = fs::remove_file(kept.join("w.log"));
            }
        });
        for _ in 0..ROUNDS {
            let opened = Directory::of(&path).and_then(|(at, name)| at.append(&name, 0o640));
            if let Ok(mut file) = opened {
                file.write_all(b"of a program\n").expect("written");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    world.canary_is_untouched();
    assert!(!world.top.path().join("w.log").exists());
}
