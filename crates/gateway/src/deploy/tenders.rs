//! One task a service, for as long as there is something to tend.

use std::{collections::HashMap, future::Future, sync::Arc};

use tokio::{
    sync::Notify,
    task::{Id, JoinSet},
};

use crate::view::ServiceName;

/// The tasks. A task that has ended is one until [`ended`](Self::ended) has told so: what woke it in between woke nobody, so
/// that whoever is told looks whether there is something to tend after all.
#[derive(Debug, Default)]
pub struct Tenders {
    tasks: JoinSet<()>,
    names: HashMap<Id, ServiceName>,
    wakes: HashMap<ServiceName, Arc<Notify>>,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself: there was nothing to tend.
    Over,
    /// By a fault of the program.
    Broken,
}

impl Tenders {
    /// Has a service looked at: by its task or, where it has none, by a new one.
    pub fn wake<F>(&mut self, name: ServiceName, tend: impl FnOnce(Arc<Notify>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(wake) = self.wakes.get(&name) {
            wake.notify_one();
            return;
        }
        let wake = Arc::new(Notify::new());
        let task = self.tasks.spawn(tend(Arc::clone(&wake)));
        self.names.insert(task.id(), name.clone());
        self.wakes.insert(name, wake);
    }

    /// Waits until a task ends; for ever where there is none. Cancelled, it loses nothing.
    pub async fn ended(&mut self) -> (ServiceName, End) {
        loop {
            let (id, end) = match self.tasks.join_next_with_id().await {
                Some(Ok((id, ()))) => (id, End::Over),
                Some(Err(error)) => (error.id(), End::Broken),
                None => std::future::pending().await,
            };
            if let Some(name) = self.names.remove(&id) {
                self.wakes.remove(&name);
                return (name, end);
            }
        }
    }

    /// Waits for all of them.
    pub async fn join(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn web() -> ServiceName {
        ("default".to_owned(), "web".to_owned())
    }

    #[tokio::test]
    async fn a_service_that_is_touched_while_its_task_ends_is_told_of() {
        let mut tenders = Tenders::default();
        let begun = Arc::new(AtomicU32::new(0));
        let tend = |_: Arc<Notify>| {
            let begun = Arc::clone(&begun);
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
            }
        };
        tenders.wake(web(), tend);
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // It has seen that there is nothing; now there is something.
        tenders.wake(web(), tend);
        assert_eq!(
            tenders.ended().await,
            (web(), End::Over),
            "so that it is looked at again"
        );
        tenders.wake(web(), tend);
        assert_eq!(tenders.ended().await, (web(), End::Over));
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_task_that_runs_is_woken_and_not_doubled() {
        let mut tenders = Tenders::default();
        let tend = |wake: Arc<Notify>| async move {
            wake.notified().await;
            wake.notified().await;
        };
        tenders.wake(web(), tend);
        tenders.wake(web(), |_| async { panic!("there is one") });
        tokio::task::yield_now().await;
        tenders.wake(web(), |_| async { panic!("there is one") });
        assert_eq!(tenders.ended().await, (web(), End::Over));
    }

    #[tokio::test]
    async fn a_task_that_breaks_is_told_of_and_can_be_begun_anew() {
        let mut tenders = Tenders::default();
        tenders.wake(web(), |_| async { panic!("as a test") });
        assert_eq!(tenders.ended().await, (web(), End::Broken));
        tenders.wake(web(), |_| async {});
        assert_eq!(tenders.ended().await, (web(), End::Over));
        tenders.join().await;
    }
}
