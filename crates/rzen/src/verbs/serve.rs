//! `rzen serve`: embeddings and search over HTTP.

use std::env::VarError;
use std::error::Error;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command, FromArgMatches};
use rzen_data::LoadOptions;
use rzen_serve::{BatchLimits, Ended, Opened, Search, Settings, Stop};

use crate::embedder::LocalEmbedder;
use crate::index::{Catalog, ServedIndex};
use crate::load_limits::LoadLimits;
use crate::models;
use crate::served::CLIP_BYTES;
use crate::vectors::Key;
use crate::verbs::model_options::ModelOptions;
use crate::verbs::search::Moved;

/// Serve embeddings over HTTP, and search in an index
///
/// Answers as OpenAI (/v1/embeddings, with vLLM's messages for pictures and clips) and text-embeddings-inference (/embed, /info, /health,
/// /metrics) do; with --index also /v1/search, and a page to search with at /. Media come as bytes: no address is opened and no path
/// is read that a request names.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  rzen serve --model RzenEmbed --dtype bf16\n  rzen serve --index home.index --port 8080\n  \
                  curl 127.0.0.1:8080/v1/embeddings -d '{\"input\": \"a dog on a beach\"}'"
)]
pub struct Args {
    #[command(flatten)]
    model: GivenModel,
    /// An index of `rzen index` to be searched; the model and its settings are those of the index
    #[arg(long, value_name = "INDEX")]
    index: Option<PathBuf>,
    /// What the model is called in answers; default the name of its folder
    #[arg(long, value_name = "NAME")]
    served_model_name: Option<String>,
    /// Address to listen at
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen at; 0 for one that is free
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Requests that are answered at once; one more is refused (429)
    #[arg(long, default_value_t = 128, value_name = "N")]
    max_concurrent_requests: usize,
    /// Items of a request, at most
    #[arg(long, default_value_t = 2048, value_name = "N")]
    max_client_batch_size: usize,
    /// Bytes of a request, at most
    #[arg(long, default_value_t = 32_000_000, value_name = "BYTES")]
    payload_limit: usize,
    /// Pixels of a picture, frame or page of a request, at most
    #[arg(long, default_value_t = 50_000_000, value_name = "N")]
    max_pixels: u64,
    /// Longest time for a clip or a page of a request to be decoded, in seconds; pages have a minute at most
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    media_timeout: u64,
    /// Hits of a search, at most
    #[arg(long, default_value_t = 1000, value_name = "N")]
    max_top: usize,
    /// What requests must bring as `Authorization: Bearer KEY`; better given as RZEN_API_KEY, as other users see arguments
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Longest time for requests to be finished after Ctrl-C or SIGTERM, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    grace: u64,
    /// Write a line for each request to standard error: method, path, status and time, nothing of its content
    #[arg(long)]
    access_log: bool,
}

/// The options of a model, of which an index may say most.
#[derive(Debug)]
struct GivenModel {
    options: ModelOptions,
    /// Which of them stood on the command line.
    given: Vec<String>,
}

/// Stands for the model where none is given.
const OF_INDEX: &str = "that of the index";

impl clap::Args for GivenModel {
    fn augment_args(command: Command) -> Command {
        let optional = |model: clap::Arg| model.required(false).default_value(OF_INDEX);
        ModelOptions::augment_args(command).mut_arg("model", optional)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for GivenModel {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let all = ModelOptions::augment_args(Command::new("rzen"));
        let ids = all.get_arguments().map(|argument| argument.get_id().to_string());
        let given = ids.filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine)).collect();
        Ok(GivenModel { options: ModelOptions::from_arg_matches(matches)?, given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Options of a model that may be given beside an index.
const BESIDE_INDEX: [&str; 5] = ["model", "adapter", "device", "batch_size", "batch_tokens"];

/// Runs the verb.
///
/// # Errors
/// Names the option that is wrong, what of the model or the index can't be read, or why the model can't be used.
pub fn run(args: &Args) -> Result<()> {
    let api_key = args.api_key()?;
    // All that is written of requests lies below one folder, so that it can go at once.
    let media = tempfile::Builder::new().prefix("rzen-serve-").tempdir().context("no folder for media")?;
    let settings = args.settings(api_key, media.path())?;
    let (options, index) = args.model()?;
    let listener = TcpListener::bind((args.host.as_str(), args.port))
        .with_context(|| format!("can't listen at {}:{}; is something else there?", args.host, args.port))?;
    if settings.api_key.is_none() && !listener.local_addr()?.ip().is_loopback() {
        let who = format!("whoever reaches {} may ask; --api-key or RZEN_API_KEY asks for a key", args.host);
        rzen_serve::log(&who);
    }
    let stop = Stop::default();
    on_interrupt(stop.clone(), media.path().to_owned())?;
    let name = args.name(&options);
    let address = listener.local_addr()?;
    rzen_serve::log(&format!("listening at {address}, opening {}", options.model.display()));
    let limits = args.limits(LoadLimits::parse(&options.load)?.options());
    let open = move || open(&options, index, name, limits).map_err(Box::<dyn Error + Send + Sync>::from);
    let ended = rzen_serve::serve(listener, settings, &stop, open, |ready| {
        let items = ready.items.map_or(String::new(), |items| format!(", {items} items to be searched"));
        println!("http://{}: {}, {} numbers in a vector{items}", ready.address, ready.name, ready.dim);
        if ready.items.is_some() {
            rzen_serve::log(&format!("open http://{} in a browser to search", ready.address));
        }
    })?;
    ensure!(
        ended == Ended::Finished,
        "stopped with requests that were not answered within --grace {} s",
        args.grace
    );
    Ok(())
}

impl Args {
    fn settings(&self, api_key: Option<String>, media: &Path) -> Result<Settings> {
        let counts = [
            ("--max-concurrent-requests", self.max_concurrent_requests),
            ("--max-client-batch-size", self.max_client_batch_size),
            ("--payload-limit", self.payload_limit),
            ("--max-top", self.max_top),
            ("--batch-size", self.model.options.batch_size),
            ("--batch-tokens", self.model.options.batch_tokens),
        ];
        for (option, count) in counts {
            ensure!(count > 0, "{option} is 0, expected 1 or more");
        }
        // The model is tried with pictures of 64 x 64. Loaders go no further by themselves.
        let most = LoadOptions::default();
        let ranges = [
            ("--max-pixels", self.max_pixels, 64 * 64..=most.max_pixels),
            ("--media-timeout", self.media_timeout, 1..=most.video_timeout_ms / 1000),
        ];
        for (option, value, range) in ranges {
            let (least, most) = (range.start(), range.end());
            ensure!(range.contains(&value), "{option} is {value}, expected {least} to {most}");
        }
        let ModelOptions { batch_size: items, batch_tokens: tokens, .. } = self.model.options;
        Ok(Settings {
            batch: BatchLimits { items, tokens },
            max_concurrent_requests: self.max_concurrent_requests,
            max_client_batch_size: self.max_client_batch_size,
            payload_limit: self.payload_limit,
            max_top: self.max_top,
            api_key,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            body_pause: Duration::from_secs(5),
            proof: Duration::from_secs(10),
            grace: Duration::from_secs(self.grace),
            media: media.to_owned(),
            access_log: self.access_log,
        })
    }

    fn api_key(&self) -> Result<Option<String>> {
        let key = match (&self.api_key, std::env::var("RZEN_API_KEY")) {
            (Some(key), _) => Some(key.clone()),
            (None, Ok(key)) => Some(key),
            (None, Err(VarError::NotPresent)) => None,
            (None, Err(error)) => anyhow::bail!("RZEN_API_KEY: {error}"),
        };
        ensure!(
            key.as_ref().is_none_or(|key| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())),
            "--api-key or RZEN_API_KEY: give letters, digits and signs without spaces"
        );
        Ok(key)
    }

    /// The model, and the index with the key of its vectors.
    fn model(&self) -> Result<(ModelOptions, Option<(PathBuf, Key)>)> {
        let GivenModel { options, given } = &self.model;
        let is_given = |id: &str| given.iter().any(|given| given == id);
        let Some(index) = &self.index else {
            ensure!(is_given("model"), "which model? Give --model DIR, or --index INDEX");
            options.check()?;
            return Ok((options.clone(), None));
        };
        if let Some(other) = given.iter().find(|id| !BESIDE_INDEX.contains(&id.as_str())) {
            anyhow::bail!("--{} stands beside --index, which says that itself", other.replace('_', "-"));
        }
        let catalog = Catalog::read(index)?.with_context(|| {
            format!("{} is no index; give the --output of a `rzen index`", index.display())
        })?;
        let moved = Moved {
            model: is_given("model").then_some(&options.model),
            adapter: options.adapter.as_ref(),
            device: is_given("device").then_some(&options.device),
        };
        let batches = (options.batch_size, options.batch_tokens);
        let mut options = moved.model_of(&catalog)?;
        (options.batch_size, options.batch_tokens) = batches;
        Ok((options, Some((index.clone(), catalog.header.key))))
    }

    fn name(&self, options: &ModelOptions) -> String {
        let folder = crate::files::resolved(&options.model).unwrap_or_else(|_| options.model.clone());
        let of_folder = || folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.served_model_name.clone().unwrap_or_else(of_folder)
    }

    /// What media of requests may ask for; never more than `limits`.
    fn limits(&self, limits: LoadOptions) -> LoadOptions {
        let timeout_ms = self.media_timeout * 1000;
        LoadOptions {
            max_pixels: limits.max_pixels.min(self.max_pixels),
            pdf_timeout_ms: limits.pdf_timeout_ms.min(timeout_ms),
            video_timeout_ms: limits.video_timeout_ms.min(timeout_ms),
            video_byte_cap: limits.video_byte_cap.min(CLIP_BYTES),
            ..limits
        }
    }
}

fn open(
    options: &ModelOptions,
    index: Option<(PathBuf, Key)>,
    name: String,
    limits: LoadOptions,
) -> Result<Opened<LocalEmbedder>> {
    let config = options.processor_config()?;
    let search = |(folder, key): (PathBuf, Key)| -> Result<Box<dyn Search>> {
        let own_limits = LoadLimits::parse(&options.load)?.options();
        let loader = models::loader(&config, PathBuf::new(), own_limits);
        Ok(Box::new(ServedIndex::open(Path::new(&folder), key, loader)?))
    };
    // That of an index was checked when the index was made.
    if index.is_none() {
        options.check_base()?;
    }
    let search = index.map(search).transpose()?;
    let model = options.open()?.embedder(PathBuf::new(), options.batch_size, options.batch_tokens, limits);
    let model = model.keeping_prefixes();
    Ok(Opened { model, name, dtype: options.dtype.clone(), max_length: config.max_length, search })
}

/// The first Ctrl-C or SIGTERM asks for an orderly end, the second ends at once and takes the media along.
fn on_interrupt(stop: Stop, media: PathBuf) -> Result<()> {
    let told = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if told.swap(true, Ordering::SeqCst) {
            let _ = std::fs::remove_dir_all(&media);
            std::process::exit(130);
        }
        stop.now();
    })
    .context("can't listen for Ctrl-C")
}
