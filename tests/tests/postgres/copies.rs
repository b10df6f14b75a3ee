//! Bulk both ways: what arrives is what was sent, by its checksum.

use fairlead_tests::clients::{asks_for_all, run, stock};

use crate::stage::Stage;

/// Rows of 1,024 bytes with their line breaks: 1 GiB in the slow tier.
fn rows() -> u32 {
    if asks_for_all() { 1024 * 1024 } else { 16 * 1024 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_and_out_again_has_the_same_checksum() {
    let stage = Stage::set(None).await;
    let file = |name: &str| stage.lab.path(name).display().to_string();
    let (sent, back) = (file("sent"), file("back"));
    let mut make = stock("python3");
    let text = "import hashlib, sys
with open(sys.argv[1], 'w') as out:
    for number in range(int(sys.argv[2])):
        row = hashlib.shake_256(str(number).encode()).hexdigest(506)
        out.write(f'{number:010}\\t{row}\\n')
";
    make.args(["-c", text, &sent, &rows().to_string()]);
    run(make).await.succeeded();
    assert_eq!(std::fs::metadata(&sent).unwrap().len(), u64::from(rows()) * 1024);
    stage
        .query("", "create unlogged table bulk (n bigint, x text)")
        .await
        .succeeded();
    run(stage.psql("", &["-c", &format!("\\copy bulk from '{sent}'")]))
        .await
        .succeeded();
    let query = "select lpad(n::text, 10, '0'), x from bulk order by n";
    run(stage.psql("", &["-c", &format!("\\copy ({query}) to '{back}'")]))
        .await
        .succeeded();
    let sum = async |path: &str| {
        let mut sha256 = stock("sha256sum");
        sha256.arg(path);
        run(sha256).await.succeeded().text()[..64].to_owned()
    };
    assert_eq!(sum(&sent).await, sum(&back).await);
    stage.strike().await;
}
