//! One thread at a time owns an event base.

use evbase::base::EventBase;

fn to_a_thread<T: Send>(_: T) {}

fn main() {
    let base = EventBase::<u8>::new().unwrap();
    to_a_thread(&base);
}
