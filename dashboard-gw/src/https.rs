//! HTTPS on the dashboard's listener. Renewed certificates are shown to whoever connects next;
//! connections that are open go on.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};

use bus::admin::Admin;
use bus::shutdown::Shutdown;
use bus::tls::{Identity, TlsError};
use bus::watch::Watch;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

/// What the listener proves itself with.
#[derive(Debug)]
pub(crate) struct Https {
    folder: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
    admin: Admin,
}

impl Https {
    /// Reads the files of `folder`, and again whenever they change, until the stop.
    pub(crate) fn start(
        folder: PathBuf,
        admin: &Admin,
        shutdown: &Shutdown,
    ) -> Result<Arc<Self>, TlsError> {
        let watch = Watch::new(&folder);
        let https = Arc::new(Self {
            config: RwLock::new(read(&folder, admin)?),
            folder,
            admin: admin.clone(),
        });
        shutdown.spawn(https.clone().follow(watch, shutdown.clone()));
        Ok(https)
    }

    async fn follow(self: Arc<Self>, mut watch: Watch, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = watch.changed() => {}
                () = shutdown.stopping() => return,
            }
            let this = self.clone();
            let again = tokio::task::spawn_blocking(move || read(&this.folder, &this.admin));
            match again.await {
                Ok(Ok(config)) => {
                    tracing::info!("the dashboard shows its renewed certificate");
                    *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                }
                Ok(Err(error)) => {
                    let error: &dyn Error = &error;
                    tracing::error!(error, "the dashboard's old certificate is used on");
                }
                Err(_) => tracing::error!("the dashboard's certificate could not be read again"),
            }
        }
    }

    fn accept(&self, stream: TcpStream) -> Accept<TcpStream> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(config.clone()).accept(stream)
    }
}

fn read(folder: &Path, admin: &Admin) -> Result<Arc<ServerConfig>, TlsError> {
    let identity = Identity::load(folder)?;
    let mut config = identity.server_config()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if let Some(expiry) = identity.expiry() {
        admin.certificate(expiry);
    }
    Ok(Arc::new(config))
}

/// The bytes of a connection, within TLS or not. The handshake is made by whoever reads or writes
/// first, so that no client makes others wait.
pub(crate) enum Wire {
    Plain(TcpStream),
    Handshake(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
    /// The handshake failed.
    Refused,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, https: Option<&Https>) -> Self {
        match https {
            Some(https) => Self::Handshake(Box::new(https.accept(stream))),
            None => Self::Plain(stream),
        }
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Self::Handshake(accept) = self {
            match ready!(Pin::new(accept.as_mut()).poll(context)) {
                Ok(stream) => *self = Self::Tls(Box::new(stream)),
                Err(error) => {
                    tracing::debug!(%error, "a TLS handshake failed");
                    *self = Self::Refused;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Does something on the stream once the handshake is over.
    fn poll_on<T>(
        &mut self,
        context: &mut Context<'_>,
        plain: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
        tls: impl FnOnce(Pin<&mut TlsStream<TcpStream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        ready!(self.poll_handshake(context))?;
        match self {
            Self::Plain(stream) => plain(Pin::new(stream), context),
            Self::Tls(stream) => tls(Pin::new(stream.as_mut()), context),
            Self::Handshake(_) | Self::Refused => {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_handshake(context))?;
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Handshake(_) | Self::Refused => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_on(
            context,
            |stream, context| stream.poll_write(context, bytes),
            |stream, context| stream.poll_write(context, bytes),
        )
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_on(context, AsyncWrite::poll_flush, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            // Nothing was said that could be ended in good order.
            Self::Handshake(_) | Self::Refused => Poll::Ready(Ok(())),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_on(
            context,
            |stream, context| stream.poll_write_vectored(context, buffers),
            |stream, context| stream.poll_write_vectored(context, buffers),
        )
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
