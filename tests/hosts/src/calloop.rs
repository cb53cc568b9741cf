//! calloop, by a `Generic` source.

use std::rc::Rc;
use std::time::{Duration, Instant};

use calloop::generic::Generic;
use calloop::{EventLoop, Interest, Mode, PostAction};
use evbase::Embedded;

use crate::Turns;
use crate::scenarios::Host;

pub(crate) struct Calloop(Mode);

impl Calloop {
    pub(crate) fn new(mode: Mode) -> Self {
        Self(mode)
    }
}

impl Host for Calloop {
    fn serve(&mut self, embedded: &Rc<Embedded>, done: &dyn Fn() -> bool, longest: Duration) -> usize {
        let turns = Turns::of(embedded, done);
        let end = Instant::now() + longest;
        let mut events = EventLoop::<()>::try_new().unwrap();
        let source = Generic::new(embedded.clone(), Interest::READ, self.0);
        let turn = |_, _: &mut _, _: &mut ()| {
            turns.turn();
            Ok(PostAction::Continue)
        };
        events.handle().insert_source(source, turn).unwrap();
        while !turns.are_over() && Instant::now() < end {
            events.dispatch(end - Instant::now(), &mut ()).unwrap();
        }
        drop(events);
        turns.count()
    }
}
