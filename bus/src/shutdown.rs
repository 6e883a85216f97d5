//! Starting and ending tasks: every task is tracked, and ends when it is told to.
//!
//! Two stages. *Stop* asks: finish what was accepted, say goodbye, leave. *Kill* follows at the
//! deadline, or at the second signal. A task that ends with an error or a panic stops everything.

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a clean stop may take before what is left is ended.
pub const GRACE: Duration = Duration::from_secs(5);

/// The end of a part and of all tasks in it. Clones share it; [`Shutdown::child`] makes a smaller one.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stop: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
    failure: Arc<Mutex<Option<String>>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// The end of a whole process.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
            failure: Arc::default(),
        }
    }

    /// The end of one part: it can be stopped alone, is killed with the whole, and its failure stops
    /// the whole once [`Shutdown::watch`]ed.
    ///
    /// Stopping the parent does not stop the child, so that the owner can stop parts in an order.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            stop: CancellationToken::new(),
            kill: self.kill.child_token(),
            tasks: TaskTracker::new(),
            failure: self.failure.clone(),
        }
    }

    /// Asks everything to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends everything now.
    pub fn kill(&self) {
        self.stop.cancel();
        self.kill.cancel();
    }

    /// Stops everything because of an error; the first one is kept.
    pub fn fail(&self, error: impl Display) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| error.to_string());
        drop(failure);
        self.stop.cancel();
    }

    /// The error that stopped everything, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Completes when a stop was asked for. Cancel safe.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Completes when what is left must end at once. Cancel safe.
    pub async fn killed(&self) {
        self.kill.cancelled().await;
    }

    /// Starts a task. It is dropped when the kill comes; a panic in it stops everything.
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Boxed, because a future that is handed on is as large as all the places it was in.
        let mut task = Box::pin(task);
        let contained = poll_fn(move |context| {
            let polled = AssertUnwindSafe(|| task.as_mut().poll(context));
            match catch_unwind(polled) {
                Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
                Ok(Poll::Pending) => Poll::Pending,
                Err(_) => Poll::Ready(Err(())),
            }
        });
        let shutdown = self.clone();
        tokio::spawn(self.tasks.track_future(async move {
            let ended = tokio::select! {
                () = shutdown.kill.cancelled() => Ok(()),
                ended = contained => ended,
            };
            if ended.is_err() {
                shutdown.fail("a task panicked: see the log above for where");
            }
        }));
    }

    /// Starts a task whose error stops everything.
    pub fn spawn_vital<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let shutdown = self.clone();
        self.spawn(async move {
            if let Err(error) = task.await {
                shutdown.fail(format_args!("{name}: {error}"));
            }
        });
    }

    /// Makes a failure of `child` stop this too.
    pub fn watch(&self, child: &Self) {
        let (parent, child) = (self.clone(), child.clone());
        self.spawn(async move {
            tokio::select! {
                () = child.stopping() => if child.failure().is_some() { parent.stop(); },
                () = parent.stopping() => {}
            }
        });
    }

    /// Waits until every task has ended after a stop, at most `grace`, then kills what is left.
    ///
    /// Gives whether all ended by themselves. Cancel safe.
    pub async fn drained(&self, grace: Duration) -> bool {
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_ok() {
            return true;
        }
        self.kill.cancel();
        // Dropping a future takes no time worth a bound, but nothing may hang here for ever.
        let ended = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        if ended.is_err() {
            tracing::error!("tasks are still running after the kill");
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clean_task_is_waited_for() {
        let shutdown = Shutdown::new();
        let task = shutdown.clone();
        shutdown.spawn(async move { task.stopping().await });
        shutdown.stop();
        assert!(shutdown.drained(GRACE).await);
        assert_eq!(shutdown.failure(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_leave_is_ended() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending());
        shutdown.stop();
        assert!(!shutdown.drained(GRACE).await);
    }

    #[tokio::test]
    async fn a_panic_stops_everything() {
        let shutdown = Shutdown::new();
        shutdown.spawn(async { panic!("on purpose") });
        shutdown.stopping().await;
        assert!(
            shutdown
                .failure()
                .is_some_and(|error| error.contains("panicked"))
        );
    }

    #[tokio::test]
    async fn a_failed_part_stops_the_whole_and_the_whole_stops_no_part() {
        let whole = Shutdown::new();
        let (part, other) = (whole.child(), whole.child());
        whole.watch(&part);
        part.spawn_vital("part", async { Err("on purpose") });
        whole.stopping().await;
        assert_eq!(whole.failure().as_deref(), Some("part: on purpose"));
        assert!(!other.is_stopping());
    }
}
