//! Files: scp, sftp and rsync, there and back, equal to the last byte.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use fairlead_tests::clients::{asks_for_all, run};
use sha2::{Digest, Sha256};

/// 64 MiB, or 1 GiB with FAIRLEAD_TESTS_ALL=1; a few bytes more, so that no block divides it.
fn large() -> usize {
    (if asks_for_all() { 1024 } else { 64 }) * 1024 * 1024 + 7
}

/// Writes `bytes` bytes that no compression shortens and that differ in every block.
fn write_noise(path: &Path, bytes: usize) {
    let mut out = BufWriter::with_capacity(1024 * 1024, File::create(path).unwrap());
    let (mut state, mut left) = (0x9e37_79b9_7f4a_7c15_u64, bytes);
    let mut block = Vec::with_capacity(64 * 1024);
    while left > 0 {
        block.clear();
        while block.len() < 64 * 1024 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        let now = left.min(block.len());
        out.write_all(&block[..now]).unwrap();
        left -= now;
    }
    out.flush().unwrap();
}

fn sum(path: &Path) -> String {
    let mut digest = Sha256::new();
    std::io::copy(&mut File::open(path).unwrap(), &mut HashWriter(&mut digest)).unwrap();
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

on_both_servers! {
    scp_of_a_large_file_there_and_back_is_equal(stage) {
        let dir = stage.lab.path("files");
        std::fs::create_dir(&dir).unwrap();
        let (original, there, back) = (dir.join("original"), dir.join("there"), dir.join("back"));
        write_noise(&original, large());
        let remote = format!("{}:{}", stage.device, there.display());
        run(stage.alice.scp(&[original.to_str().unwrap(), &remote])).await.succeeded();
        run(stage.alice.scp(&[&remote, back.to_str().unwrap()])).await.succeeded();
        let expected = sum(&original);
        assert_eq!((sum(&there), sum(&back)), (expected.clone(), expected));
        let session = stage.lab.gateway_audit().awaited("session.end", None).await;
        assert!(session.number("bytes_in").unwrap() >= large() as u64, "{session:?}");
        stage.strike().await;
    }

    scp_in_its_old_protocol_and_of_a_tree(stage) {
        let dir = stage.lab.path("files");
        std::fs::create_dir_all(dir.join("tree/below")).unwrap();
        write_noise(&dir.join("tree/one"), 100_001);
        std::fs::write(dir.join("tree/below/empty"), "").unwrap();
        std::fs::write(dir.join("tree/below/a name with spaces"), "x").unwrap();
        let tree = dir.join("tree");
        for (protocol, target) in [("-O", "old"), ("-s", "new")] {
            let remote = format!("{}:{}", stage.device, dir.join(target).display());
            run(stage.alice.scp(&[protocol, "-r", "-p", tree.to_str().unwrap(), &remote])).await.succeeded();
            assert_eq!(sum(&dir.join(target).join("one")), sum(&tree.join("one")));
            assert_eq!(std::fs::read(dir.join(target).join("below/a name with spaces")).unwrap(), b"x");
            assert_eq!(std::fs::read(dir.join(target).join("below/empty")).unwrap(), b"");
        }
        stage.strike().await;
    }

    rsync_there_and_back_and_again(stage) {
        let dir = stage.lab.path("files");
        std::fs::create_dir_all(dir.join("tree/below")).unwrap();
        write_noise(&dir.join("tree/large"), 5_000_003);
        for at in 0..50 {
            std::fs::write(dir.join(format!("tree/below/file-{at}")), format!("{at}\n").repeat(at)).unwrap();
        }
        let local = format!("{}/", dir.join("tree").display());
        let remote = format!("{}:{}/", stage.device, dir.join("there").display());
        let back = format!("{}/", dir.join("back").display());
        run(stage.alice.rsync(&["-a", &local, &remote])).await.succeeded();
        run(stage.alice.rsync(&["-a", &remote, &back])).await.succeeded();
        assert_eq!(sum(&dir.join("back/large")), sum(&dir.join("tree/large")));
        assert_eq!(std::fs::read_dir(dir.join("back/below")).unwrap().count(), 50);
        // What is there already is not sent again.
        std::fs::write(dir.join("tree/below/file-7"), "changed").unwrap();
        let again = run(stage.alice.rsync(&["-a", "--checksum", "--out-format=%n", &local, &remote])).await.succeeded();
        assert!(again.text().lines().filter(|line| !line.ends_with('/')).eq(["below/file-7"]), "{}", again.text());
        stage.strike().await;
    }

    an_sftp_batch_does_what_it_says_and_stops_at_a_mistake(stage) {
        let dir = stage.lab.path("files");
        std::fs::create_dir(&dir).unwrap();
        write_noise(&dir.join("local"), 300_001);
        let at = dir.display();
        let batch = format!(
            "mkdir {at}/there\nput {at}/local {at}/there/one\nrename {at}/there/one {at}/there/two\nchmod 640 {at}/there/two\n\
             symlink {at}/there/two {at}/there/link\nls -1 {at}/there\nget {at}/there/link {at}/back\nrm {at}/there/link\nbye\n"
        );
        let done = run(stage.alice.sftp(&batch, &stage.device)).await.succeeded();
        assert!(done.text().contains(&format!("{at}/there/two")), "{}", done.text());
        assert_eq!(sum(&dir.join("back")), sum(&dir.join("local")));
        assert!(!dir.join("there/link").exists() && dir.join("there/two").exists());
        let mistake = format!("get {at}/there/absent {at}/x\nmkdir {at}/never\n");
        let failed = run(stage.alice.sftp(&mistake, &stage.device)).await;
        assert_eq!(failed.code(), Some(1), "{}", failed.stderr);
        assert!(!dir.join("never").exists(), "sftp goes on after a mistake");
        stage.strike().await;
    }
}
