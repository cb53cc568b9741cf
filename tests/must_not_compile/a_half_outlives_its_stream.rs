//! Borrowed halves keep the stream where it is; while they are alive there is no second pair of them.

use evbase::net::TcpStream;

fn dropped(mut stream: TcpStream) {
    let (reader, _writer) = stream.split();
    drop(stream);
    drop(reader);
}

fn split_twice(mut stream: TcpStream) {
    let (reader, _writer) = stream.split();
    let (_reader, writer) = stream.split();
    drop((reader, writer));
}

fn main() {}
