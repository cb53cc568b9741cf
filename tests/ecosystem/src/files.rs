use futures::{AsyncReadExt, AsyncWriteExt};

use crate::on_a_loop;
use crate::servers::Directory;

#[test]
fn async_fs_reads_what_it_wrote() {
    on_a_loop(async || {
        let directory = Directory::new("files");
        let path = directory.path().join("file");
        let written: Vec<u8> = (0..1_000_000u32).map(|at| at as u8).collect();
        let mut file = async_fs::File::create(&path).await?;
        file.write_all(&written).await?;
        file.close().await?;
        let mut read = Vec::new();
        async_fs::File::open(&path).await?.read_to_end(&mut read).await?;
        assert!(read == written);
        let error = async_fs::read(directory.path().join("none")).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        Ok(())
    });
}
