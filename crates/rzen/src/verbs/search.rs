//! `rzen search`: the files of an index that are nearest to a query.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rzen_core::{Embed, Item, Part, VideoSource};
use rzen_data::embed_rows;
use serde_json::{Value, json};

use crate::files::resolved;
use crate::index::{Catalog, Entry, Hit, Kind, Place, Stamp, search};
use crate::load_limits::LoadLimits;
use crate::models;
use crate::output::check_file;
use crate::report::{FoundPage, FoundQuery, FoundResult, write_found};
use crate::summary::shown;
use crate::vectors::VectorStore;
use crate::verbs::model_options::ModelOptions;

/// Find pictures, clips and pages in an index
///
/// A query is a text, a picture, a clip, a page, or several of them together. It is embedded with the model that the index was made
/// with, and compared with everything there; scores are cosines.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  rzen search home.index --text 'a dog on a beach' --instruction 'Find me an everyday image that matches the given caption: '\n  \
                  rzen search home.index --image chair.jpg --text 'the same in red' --kind image --page found.html"
)]
pub struct Args {
    /// An index of `rzen index`
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// Words
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// A picture; may be given several times
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// A clip
    #[arg(long, value_name = "FILE")]
    video: Option<PathBuf>,
    /// A page of a PDF file, as FILE:PAGE; the first, where there is none
    #[arg(long, value_name = "FILE[:PAGE]")]
    document: Option<String>,
    /// Many queries instead: rows as of `rzen embed`
    #[arg(long, value_name = "ROWS.jsonl", conflicts_with_all = ["text", "image", "video", "document", "instruction"])]
    queries: Option<PathBuf>,
    /// What is asked of the query
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// Results of a query
    #[arg(long, default_value_t = 10, value_name = "N")]
    top: usize,
    /// Only results of this kind; may be given several times
    #[arg(long, value_name = "KIND")]
    kind: Vec<Kind>,
    /// Only results below this folder
    #[arg(long, value_name = "DIR")]
    below: Option<PathBuf>,
    /// Print JSON, a line for each query
    #[arg(long)]
    json: bool,
    /// Write a page that shows queries and results
    #[arg(long, value_name = "FILE.html")]
    page: Option<PathBuf>,
    /// Where the model of the index lies now, if it was moved
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Where the adapter of the index lies now, if it was moved
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Device that embeds the query; default that of the index
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

/// A query and what it is called.
struct Query {
    id: Option<String>,
    item: Item,
}

/// Runs the verb.
///
/// # Errors
/// Names the option, row or file that is wrong, or what of the index no longer fits its model.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.top > 0, "--top is 0, expected 1 or more");
    if let Some(page) = &args.page {
        ensure!(
            page.extension().is_some_and(|ending| ending == "html") && !page.is_dir(),
            "--page {}: name a file that ends in .html",
            page.display()
        );
        check_file(page)?;
    }
    let catalog = Catalog::read(&args.index)?.with_context(|| {
        format!("{} is no index; give the --output of a `rzen index`", args.index.display())
    })?;
    let queries = args.queries()?;
    let mut store = VectorStore::open_to_read(&args.index, &catalog.header.key)?;
    let moved =
        Moved { model: args.model.as_ref(), adapter: args.adapter.as_ref(), device: args.device.as_ref() };
    let options = moved.model_of(&catalog)?;
    let items: Vec<Item> = queries.iter().map(|query| query.item.clone()).collect();
    let vectors = options.embedder()?.embed(&items)?;
    let below = args.below.as_deref().map(resolved).transpose()?;
    let wanted = |entry: &Entry| {
        (args.kind.is_empty() || args.kind.contains(&entry.kind))
            && below.as_ref().is_none_or(|below| entry.path.starts_with(below))
    };
    let found = search(&catalog, &mut store, &vectors, args.top, wanted)?;
    for (query, hits) in queries.iter().zip(&found) {
        match args.json {
            true => println!("{}", as_json(query, hits)),
            false => print(query, hits),
        }
    }
    if let Some(page) = &args.page {
        write_page(page, &catalog, &options, &queries, &found)?;
        eprintln!("page: {}", page.display());
    }
    Ok(())
}

impl Args {
    fn queries(&self) -> Result<Vec<Query>> {
        if let Some(file) = &self.queries {
            let rows = embed_rows(file, file.parent().unwrap_or(Path::new("")))?;
            ensure!(!rows.is_empty(), "{}: no rows", file.display());
            return Ok(rows.into_iter().map(|row| Query { id: Some(row.id), item: row.item }).collect());
        }
        let mut content: Vec<Part> = self.image.iter().cloned().map(Part::Image).collect();
        content.extend(self.video.clone().map(|file| Part::Video(VideoSource::File(file))));
        content.extend(self.document.as_deref().map(page_of).transpose()?);
        content.extend(self.text.clone().map(Part::Text));
        ensure!(
            !content.is_empty(),
            "what is to be found? Give --text, --image, --video or --document, or many --queries"
        );
        Ok(vec![Query { id: None, item: Item { content, instruction: self.instruction.clone() } }])
    }
}

/// Where the model of an index is now, as far as it was moved.
pub(super) struct Moved<'a> {
    pub model: Option<&'a PathBuf>,
    pub adapter: Option<&'a PathBuf>,
    pub device: Option<&'a String>,
}

impl Moved<'_> {
    /// The model of the index.
    ///
    /// # Errors
    /// If there is no model, or it gives other vectors than those of the index.
    pub fn model_of(&self, catalog: &Catalog) -> Result<ModelOptions> {
        let header = &catalog.header;
        let mut options = header.model.clone();
        if let Some(model) = self.model {
            options.model = model.clone();
        }
        if let Some(adapter) = self.adapter {
            ensure!(options.adapter.is_some(), "--adapter: the index was made without one");
            options.adapter = Some(adapter.clone());
        }
        options.check()?;
        let key = options.key_by(&|path| Stamp::hash(path, &header.stamps, &RefCell::default()))?;
        ensure!(
            key == header.key,
            "{} gives other vectors than those of the index (another model, settings or version of rzen); name the model that it was \
             made with by --model, or make the index anew with `rzen index --overwrite`",
            options.model.display()
        );
        if let Some(device) = self.device {
            options.device = device.clone();
        }
        Ok(options)
    }
}

/// `FILE:PAGE`, or a file alone.
fn page_of(text: &str) -> Result<Part> {
    let page_of = |(path, page): (&str, &str)| Some((path.to_owned(), page.parse::<u32>().ok()?));
    match text.rsplit_once(':').and_then(page_of) {
        Some((path, page)) if !Path::new(text).exists() => {
            ensure!(page > 0, "--document {text}: pages are counted from 1");
            Ok(Part::Document { path: path.into(), page })
        }
        _ => Ok(Part::Document { path: text.into(), page: 1 }),
    }
}

fn print(query: &Query, hits: &[Hit]) {
    if let Some(id) = &query.id {
        println!("{id}");
    }
    if hits.is_empty() {
        println!("nothing of that kind is in the index");
    }
    for (rank, hit) in hits.iter().enumerate() {
        for (i, place) in hit.places.iter().enumerate() {
            match i {
                0 => println!("{:>4}  {:.3}  {}", rank + 1, hit.score, name(place)),
                _ => println!("             {}", name(place)),
            }
        }
    }
}

fn name(place: &Place) -> String {
    match place.page {
        None => place.entry.path.display().to_string(),
        Some(page) => format!("{}, page {page}", place.entry.path.display()),
    }
}

fn as_json(query: &Query, hits: &[Hit]) -> Value {
    let place = |place: &Place| match place.page {
        None => json!({ "path": place.entry.path, "kind": place.entry.kind }),
        Some(page) => json!({ "path": place.entry.path, "kind": place.entry.kind, "page": page }),
    };
    let hits = hits.iter().enumerate().map(|(rank, hit)| {
        json!({ "rank": rank + 1, "score": hit.score, "places": hit.places.iter().map(place).collect::<Vec<_>>() })
    });
    let mut line = json!({ "hits": hits.collect::<Vec<_>>() });
    if let Some(id) = &query.id {
        line["id"] = json!(id);
    }
    line
}

fn write_page(
    path: &Path,
    catalog: &Catalog,
    options: &ModelOptions,
    queries: &[Query],
    found: &[Vec<Hit>],
) -> Result<()> {
    let limits = LoadLimits::parse(&options.load)?;
    let loader = models::loader(&options.processor_config()?, PathBuf::new(), limits.options());
    let result = |(rank, hit): (usize, &Hit)| {
        let Place { entry, page } = hit.places[0];
        let part = match (entry.kind, page) {
            (Kind::Video, _) => Part::Video(VideoSource::File(entry.path.clone())),
            (_, Some(page)) => Part::Document { path: entry.path.clone(), page },
            _ => Part::Image(entry.path.clone()),
        };
        FoundResult {
            parts: shown(&loader, &Item { content: vec![part], instruction: None }),
            label: format!("{} · {:.3}", rank + 1, hit.score),
            places: hit.places.iter().map(name).collect(),
        }
    };
    let queries = queries.iter().zip(found).map(|(query, hits)| FoundQuery {
        id: query.id.clone(),
        instruction: query.item.instruction.clone(),
        query: shown(&loader, &query.item),
        results: hits.iter().enumerate().map(result).collect(),
    });
    let items: usize = catalog.entries.iter().map(|entry| entry.vectors.iter().flatten().count()).sum();
    let summary = [
        ("model", catalog.header.model.model.display().to_string()),
        ("indexed", format!("{items} pictures, clips and pages of {} files", catalog.entries.len())),
    ];
    let page = FoundPage {
        title: "rzen: found".to_owned(),
        summary: summary.map(|(name, value)| (name.to_owned(), value)).into(),
        queries: queries.collect(),
    };
    write_found(&page, path)
}
