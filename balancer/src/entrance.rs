//! A listening socket as the connections that came in by it know it: whose listen it is in a generation, and which
//! generation serves them.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::conf::listen::Listen;
use crate::running::{Listener, Running};
use crate::worker::{Generation, Worker};

#[derive(Debug)]
pub struct Entrance {
    listener: Arc<Listener>,
    /// Which of the listens it was when last looked for: generations number them anew.
    position: Cell<usize>,
    /// Once a reload has taken it away: the last generation that had it.
    last: OnceCell<Rc<Generation>>,
}

impl Entrance {
    pub fn new(listener: Arc<Listener>, position: usize) -> Entrance {
        Entrance { listener, position: Cell::new(position), last: OnceCell::new() }
    }

    pub fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }

    /// What came by it ends as in nginx: under the configuration that it came under, and without another request.
    pub fn retire(&self, last: Rc<Generation>) {
        let _ = self.last.set(last);
    }

    pub fn is_retired(&self) -> bool {
        self.last.get().is_some()
    }

    /// The generation that counts for a request that begins now.
    pub fn generation(&self, worker: &Worker) -> Rc<Generation> {
        self.last.get().cloned().unwrap_or_else(|| worker.generation())
    }

    /// `running` is of a generation that this has given.
    pub fn listen<'a>(&self, running: &'a Running) -> &'a Listen {
        let is_here = |listener: &Arc<Listener>| {
            Arc::ptr_eq(listener, &self.listener) || listener.goes_on(&self.listener)
        };
        let mut position = self.position.get();
        if !running.listeners.get(position).is_some_and(is_here) {
            let found = running.listeners.iter().position(is_here);
            position = found.expect("a generation serves connections of its own listeners only");
            self.position.set(position);
        }
        &running.settings.http.listens[position]
    }
}
