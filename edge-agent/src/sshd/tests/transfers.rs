//! Files: scp in both of its protocols, sftp, rsync.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

const MEBIBYTE: usize = 1024 * 1024;

fn scp(device: &Device, arguments: &[&str]) -> Command {
    let mut scp = program("scp");
    scp.args(device.options("id")).args(arguments);
    scp
}

/// Runs `sftp` with commands, and gives what it said.
async fn sftp(device: &Device, commands: &str) -> Output {
    let batch = device.path("batch");
    write(&batch, commands.as_bytes());
    let mut sftp = program("sftp");
    sftp.arg("-b").arg(&batch).args(device.options("id")).arg("127.0.0.1");
    run(sftp).await
}

async fn sftp_succeeds(device: &Device, commands: &str) -> String {
    let output = sftp(device, commands).await;
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[tokio::test]
async fn scp_copies_both_ways() {
    let device = Device::start().await;
    let (here, back) = (device.path("here"), device.path("back"));
    let data = noise(64 * MEBIBYTE + 17, 2);
    write(&here, &data);
    std::fs::set_permissions(&here, std::fs::Permissions::from_mode(0o640)).unwrap();
    for old in [&[][..], &["-O"][..]] {
        let mut there = scp(&device, old);
        there.arg("-p").arg(&here).arg("127.0.0.1:there");
        succeed(there).await;
        assert!(std::fs::read(device.home("there")).unwrap() == data);
        let (sent, got) = (
            std::fs::metadata(&here).unwrap(),
            std::fs::metadata(device.home("there")).unwrap(),
        );
        assert_eq!((got.mode(), got.mtime()), (sent.mode(), sent.mtime()));

        let mut from = scp(&device, old);
        from.arg("127.0.0.1:there").arg(&back);
        succeed(from).await;
        assert!(std::fs::read(&back).unwrap() == data);
        std::fs::remove_file(&back).unwrap();
        std::fs::remove_file(device.home("there")).unwrap();
    }
}

#[tokio::test]
async fn scp_copies_trees() {
    let device = Device::start().await;
    let tree = device.path("tree");
    std::fs::create_dir_all(tree.join("deep/er")).unwrap();
    for number in 0..250 {
        write(
            &tree.join(format!("deep/{number} ü")),
            &noise(number * 37, number as u64),
        );
    }
    let mut there = scp(&device, &["-r"]);
    there.arg(&tree).arg("127.0.0.1:.");
    succeed(there).await;
    let mut back = scp(&device, &["-r", "127.0.0.1:tree"]);
    back.arg(device.path("again"));
    succeed(back).await;
    let mut compare = program("diff");
    compare.arg("-r").arg(&tree).arg(device.path("again"));
    succeed(compare).await;
}

#[tokio::test]
async fn sftp_does_what_its_commands_say() {
    let device = Device::start().await;
    let here = device.path("here");
    write(&here, b"first\n");
    let said = sftp_succeeds(
        &device,
        &format!(
            "pwd\nmkdir dir\nput {here} dir/a\nchmod 600 dir/a\nln -s a dir/link\nln dir/a dir/hard\nls -l dir\nrename dir/a dir/b\n\
             get dir/b {back}\nrm dir/link\nrm dir/hard\ndf\n",
            here = here.display(),
            back = device.path("back").display()
        ),
    )
    .await;
    assert!(
        said.contains(&format!("Remote working directory: {}", device.account.home.display())),
        "{said}"
    );
    assert!(said.contains("-rw-------    2 ") && said.contains("dir/a"), "{said}");
    assert!(said.contains("lrwxrwxrwx"), "{said}");
    assert!(said.contains("%Capacity"), "{said}");
    assert_eq!(std::fs::read(device.path("back")).unwrap(), b"first\n");
    assert_eq!(std::fs::metadata(device.home("dir/b")).unwrap().mode() & 0o777, 0o600);
    assert!(!device.home("dir/a").exists() && !device.home("dir/link").exists());
    sftp_succeeds(&device, "rm dir/b\nrmdir dir\n").await;
    assert!(!device.home("dir").exists());
}

#[tokio::test]
async fn sftp_lists_more_than_a_page() {
    let device = Device::start().await;
    for number in 0..1234 {
        write(&device.home(&format!("f{number:04}")), b"");
    }
    let said = sftp_succeeds(&device, "ls -1\n").await;
    let listed: Vec<&str> = said.lines().filter(|line| line.starts_with('f')).collect();
    assert_eq!(listed.len(), 1234);
    assert_eq!((listed[0], listed[1233]), ("f0000", "f1233"));
}

#[tokio::test]
async fn sftp_resumes_and_appends() {
    let device = Device::start().await;
    let (here, data) = (device.path("here"), noise(3 * MEBIBYTE, 3));
    write(&here, &data);
    write(&device.home("there"), &data[..MEBIBYTE]);
    sftp_succeeds(&device, &format!("reput {} there\n", here.display())).await;
    assert!(std::fs::read(device.home("there")).unwrap() == data);
    let back = device.path("back");
    write(&back, &data[..MEBIBYTE + 5]);
    sftp_succeeds(&device, &format!("reget there {}\n", back.display())).await;
    assert!(std::fs::read(&back).unwrap() == data);
}

#[tokio::test]
async fn sftp_says_what_went_wrong() {
    let device = Device::start().await;
    write(&device.home("file"), b"x");
    std::fs::create_dir(device.home("full")).unwrap();
    write(&device.home("full/x"), b"");
    for (command, said) in [
        ("ls missing", "not found"),
        ("get missing", "not found"),
        ("mkdir file", "Failure"),
        ("rmdir full", "Failure"),
        ("rm full", "Failure"),
        ("chown 1 file", "unsupported"),
        ("cd file", "not a directory"),
    ] {
        let output = sftp(&device, &format!("{command}\n")).await;
        assert!(!output.status.success(), "{command}");
        let all = text(&output.stdout) + &text(&output.stderr);
        assert!(all.contains(said), "{command}: {all}");
    }
}

#[tokio::test]
async fn a_fifo_does_not_hold_up_the_session() {
    let device = Device::start().await;
    nix::unistd::mkfifo(&device.home("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = sftp(&device, "-get fifo /dev/null\n-put /etc/hostname fifo\npwd\n").await;
    assert!(text(&output.stdout).contains("Remote working directory"), "{output:?}");
}

#[tokio::test]
async fn rsync_copies_both_ways_and_only_what_changed() {
    let device = Device::start().await;
    let tree = device.path("tree");
    std::fs::create_dir_all(tree.join("deep")).unwrap();
    write(&tree.join("big"), &noise(16 * MEBIBYTE, 4));
    write(&tree.join("deep/small"), b"1\n");
    let shell = format!(
        "ssh {}",
        device
            .options("id")
            .iter()
            .map(|option| format!("'{option}'"))
            .collect::<Vec<_>>()
            .join(" ")
    );
    let rsync = |from: &str, to: &str| {
        let mut rsync = program("rsync");
        rsync.args(["-a", "--stats", "-e", &shell, from, to]);
        rsync
    };
    let from = format!("{}/", tree.display());
    succeed(rsync(&from, "127.0.0.1:copy/")).await;
    write(&tree.join("deep/small"), b"22\n");
    let said = succeed(rsync(&from, "127.0.0.1:copy/")).await;
    assert!(said.contains("Number of regular files transferred: 1"), "{said}");
    let back = device.path("back");
    succeed(rsync("127.0.0.1:copy/", &format!("{}/", back.display()))).await;
    let mut compare = program("diff");
    compare.arg("-r").arg(&tree).arg(&back);
    succeed(compare).await;
}
