//! The pipeline's thread.

use std::thread;

use anyhow::{Context, anyhow};
use tokio::sync::{mpsc, oneshot};

use crate::control::Control;
use crate::exit::Abort;
use crate::pipeline::{Command, Pipeline, PipelineError};

/// The pipeline at work on a thread of its own.
pub(super) struct Worker {
    ended: oneshot::Receiver<Result<(), PipelineError>>,
    /// Whatever an operator asks goes to the pipeline, and ends with it.
    _control: Option<Control>,
}

impl Worker {
    pub(super) fn start(
        pipeline: Pipeline,
        commands: mpsc::UnboundedReceiver<Command>,
        control: Option<Control>,
    ) -> Result<Self, Abort> {
        let (ended_in, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the pipeline's runtime")?;
        thread::Builder::new()
            .name("pipeline".into())
            .spawn(move || {
                let _ = ended_in.send(runtime.block_on(pipeline.run(commands)));
            })
            .context("starting the pipeline's thread")?;
        Ok(Self { ended, _control: control })
    }
}

/// Waits for its end; for ever if there is none.
pub(super) async fn ended(worker: &mut Option<Worker>) -> anyhow::Result<()> {
    match worker {
        Some(worker) => match (&mut worker.ended).await {
            Ok(ended) => ended.context("the pipeline has stopped"),
            Err(_) => Err(anyhow!("the pipeline's thread has panicked")),
        },
        None => std::future::pending().await,
    }
}
