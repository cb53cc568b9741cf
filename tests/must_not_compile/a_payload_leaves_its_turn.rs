//! A turn lends the payload of a source, which stays the base's; and the base can't be changed from inside a turn.

use evbase::base::{EventBase, Fired, Key};

fn kept(base: &mut EventBase<String>) {
    let mut kept: Option<&mut String> = None;
    let _ = base.turn(None, |fired| {
        if let Fired::Source { payload, .. } = fired {
            kept = Some(payload);
        }
    });
    drop(kept);
}

fn changed(base: &mut EventBase<String>, key: Key) {
    let _ = base.turn(None, |_| drop(base.deregister(key)));
}

fn main() {}
