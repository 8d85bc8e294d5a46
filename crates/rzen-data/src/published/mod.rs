//! Published benchmarks as they lie on the disk: MMEB-V1 and V2, ViDoRe, BEIR.
//!
//! ```text
//! DIR/annotations/ORG/REPO/…   snapshots of data sets of the hub     ┐
//! DIR/image-tasks/…            pictures                              ├─► Draft ─► EvalSet
//! DIR/video-tasks/frames/…     frames, one folder for each clip      │
//! DIR/visdoc-tasks/SET/…       pages, written here out of the tables ┘
//! DIR/SET/corpus.jsonl, …      BEIR
//! ```
//!
//! [`Published::open`] lists the data sets, [`Published::check`] says everything that is wrong with their files,
//! [`Published::write_pages`] writes pictures out of tables, [`Published::load`] reads a set.
//!
//! Texts are those of the protocol. VLM2Vec's runner says each of them exactly. RzenEmbed's code has examples for some
//! families of sets; the others take the same instruction without line breaks, joined to the words by a space.

mod annotations;
mod draft;
mod error;
mod images;
mod moments;
mod names;
mod pages;
mod problems;
mod questions;
mod rows;
mod table;
mod texts;
mod texts_only;
mod videos;

use std::path::{Path, PathBuf};

use rzen_core::Task;

pub use error::{MissingMedia, PublishedError};
pub use names::{Distribution, Modality, Protocol, ProtocolSettings, Suite, UnknownName};
pub use problems::{Problem, Problems};

use crate::EvalSet;
use draft::{Draft, Reading};
use table::{Count, DOCUMENTS, ENGLISH, Entry, IMAGE, Layout, VIDEO};

/// A benchmark's files.
#[derive(Clone, Debug)]
pub struct Published {
    suite: Suite,
    protocol: Protocol,
    data: PathBuf,
    pages: PathBuf,
    num_frames: usize,
    tasks: Vec<PublishedTask>,
}

/// A data set of a benchmark.
#[derive(Clone, Debug)]
pub struct PublishedTask {
    /// Its key in score files, such as `ImageNet-1K`.
    pub name: String,
    /// What is searched.
    pub modality: Modality,
    /// The group that is averaged first, such as `I-CLS`; of BEIR `BEIR`.
    pub meta_task: String,
    /// The kind of work.
    pub task: Task,
    /// The headline metric: `hit_rate@1`, `ndcg@5` (linear), of BEIR `ndcg@10`.
    pub metric: String,
    /// Of the image sets, whether MMEB trains on the same source.
    pub distribution: Option<Distribution>,
    /// How many queries the published set has.
    pub expected_queries: Option<usize>,
    /// How many candidates the published set has: of its pool, or where each query has a list of its own, of that.
    pub expected_candidates: Option<usize>,
    source: Source,
}

/// Where a set comes from.
#[derive(Clone)]
enum Source {
    Table(&'static Entry),
    Beir(PathBuf),
}

impl Published {
    /// The data sets of a benchmark whose files lie in `data`. Nothing of them is read but, of BEIR, which there are.
    ///
    /// `pages` is where pages are written that stand in tables, `data` itself where it is `None`.
    ///
    /// # Errors
    /// If `data` is no folder, or has no data set in BEIR's layout.
    pub fn open(
        suite: Suite,
        data: &Path,
        protocol: Protocol,
        pages: Option<&Path>,
    ) -> Result<Self, PublishedError> {
        if !data.is_dir() {
            return Err(PublishedError::NoData { path: data.to_owned() });
        }
        let tasks = match suite {
            Suite::MmebV1 => from_table(IMAGE.iter()),
            Suite::MmebV2 => from_table(IMAGE.iter().chain(&VIDEO).chain(&DOCUMENTS)),
            Suite::Vidore => {
                from_table(DOCUMENTS.iter().filter(|set| set.meta_task.starts_with("VD-Vidore")))
            }
            Suite::VidoreV2English => {
                // One set is English as it is.
                let is_english = |set: &&Entry| set.name == "ViDoRe_esg_reports_human_labeled_v2";
                from_table(DOCUMENTS.iter().filter(is_english).chain(&ENGLISH))
            }
            Suite::Beir => texts_only::find(data)?.into_iter().map(PublishedTask::of_beir).collect(),
        };
        if tasks.is_empty() {
            return Err(PublishedError::NoneInLayout { path: data.to_owned() });
        }
        let pages = pages.unwrap_or(data).to_owned();
        let num_frames = protocol.settings().num_frames;
        Ok(Published { suite, protocol, data: data.to_owned(), pages, num_frames, tasks })
    }

    /// Takes so many frames of a clip, at least 1, instead of the protocol's 8.
    pub fn with_num_frames(self, num_frames: usize) -> Self {
        Published { num_frames, ..self }
    }

    /// Which benchmark it is.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Whose texts its items have.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Its data sets, in the order of the benchmark.
    pub fn tasks(&self) -> &[PublishedTask] {
        &self.tasks
    }

    /// The data sets of these names, or all of them, in the order of the benchmark.
    ///
    /// # Errors
    /// With the names that there are.
    pub fn named(&self, names: Option<&[String]>) -> Result<Vec<&PublishedTask>, PublishedError> {
        let Some(names) = names else { return Ok(self.tasks.iter().collect()) };
        if let Some(name) = names.iter().find(|name| !self.tasks.iter().any(|task| task.name == **name)) {
            return Err(PublishedError::NoTask {
                suite: self.suite,
                name: name.clone(),
                found: self.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>().join(", "),
            });
        }
        Ok(self.tasks.iter().filter(|task| names.contains(&task.name)).collect())
    }

    /// Reads the annotations of these data sets, or of all, looks for every file that they name, and counts. Nothing is
    /// written; pages that stand in tables are taken for there.
    ///
    /// # Errors
    /// If there is no data set of a name. What is wrong with data sets is no error: it stands in the answer.
    pub fn check(&self, names: Option<&[String]>) -> Result<Problems, PublishedError> {
        let mut problems = Problems::default();
        for task in self.named(names)? {
            problems.add(task, self.draft(task));
        }
        Ok(problems)
    }

    /// Writes the pages of a data set that stand in tables and are not there yet; those that are there are left as they
    /// are. Returns how many were written, and into which folder.
    ///
    /// # Errors
    /// If a table can't be read, a row of it holds no picture, or a page can't be written.
    pub fn write_pages(&self, task: &PublishedTask) -> Result<(usize, PathBuf), PublishedError> {
        match task.source {
            Source::Table(Entry { layout: Layout::Pages(set), .. }) => pages::write(self.reading(task), *set),
            _ => Ok((0, self.pages.clone())),
        }
    }

    /// Reads a data set; pages that are not there yet are written first. Candidates stand in the order of their ids, and so do those of a
    /// query's own list: where the answer stands in the file is not to be seen.
    ///
    /// # Errors
    /// The first table or row that is wrong, with what was found; files and folders of media that are missing.
    pub fn load(&self, task: &PublishedTask) -> Result<EvalSet, PublishedError> {
        let mut draft = self.draft(task)?;
        if !draft.embedded.is_empty() {
            self.write_pages(task)?;
            draft.embedded.clear();
        }
        match problems::missing(&draft) {
            Some(missing) => Err(missing.into()),
            None => Ok(draft.finish()),
        }
    }

    fn reading<'a>(&'a self, task: &'a PublishedTask) -> Reading<'a> {
        Reading {
            name: &task.name,
            data: &self.data,
            pages: &self.pages,
            protocol: self.protocol,
            num_frames: self.num_frames,
        }
    }

    fn draft(&self, task: &PublishedTask) -> Result<Draft, PublishedError> {
        let set = self.reading(task);
        let entry = match &task.source {
            Source::Beir(folder) => return texts_only::read(set, folder),
            Source::Table(entry) => *entry,
        };
        match entry.layout {
            Layout::Images(layout) => images::read(set, entry.name, layout),
            Layout::VideoClass(hub, folder, labels, instruction) => {
                videos::read_classes(set, hub, folder, labels, instruction)
            }
            Layout::Options(hub, folder, choice) => questions::read(set, hub, folder, choice),
            Layout::VideoSearch(hub, folder, columns, instruction) => {
                videos::read_search(set, hub, folder, columns, instruction)
            }
            Layout::Moments(hub, folder) => moments::read_folders(set, hub, folder),
            Layout::Seeker(hub, folder) => moments::read_seeker(set, hub, folder),
            Layout::Pages(pages) => pages::read(set, pages),
        }
    }
}

fn from_table(entries: impl Iterator<Item = &'static Entry>) -> Vec<PublishedTask> {
    entries.map(PublishedTask::of_table).collect()
}

impl PublishedTask {
    fn of_table(entry: &'static Entry) -> Self {
        PublishedTask {
            name: entry.name.to_owned(),
            modality: entry.modality(),
            meta_task: entry.meta_task.to_owned(),
            task: Task(entry.task().to_owned()),
            metric: entry.metric().to_owned(),
            distribution: entry.distribution,
            expected_queries: entry.queries.number(),
            expected_candidates: entry.candidates.number(),
            source: Source::Table(entry),
        }
    }

    fn of_beir((name, folder): (String, PathBuf)) -> Self {
        PublishedTask {
            name,
            modality: Modality::Text,
            meta_task: "BEIR".to_owned(),
            task: Task("text_retrieval".to_owned()),
            metric: "ndcg@10".to_owned(),
            distribution: None,
            expected_queries: None,
            expected_candidates: None,
            source: Source::Beir(folder),
        }
    }

    /// Queries and candidates as the table has them, with how sure that is.
    fn counts(&self) -> [Count; 2] {
        match self.source {
            Source::Table(entry) => [entry.queries, entry.candidates],
            Source::Beir(_) => [Count::Open; 2],
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Table(entry) => f.write_str(entry.name),
            Source::Beir(folder) => folder.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    fn tasks(suite: Suite) -> Vec<PublishedTask> {
        Published::open(suite, Path::new("/"), Protocol::Rzen, None).unwrap().tasks
    }

    #[test]
    fn the_table_has_all_data_sets() {
        let all = tasks(Suite::MmebV2);
        assert_eq!(all.iter().map(|task| &task.name).collect::<HashSet<_>>().len(), 78);
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        all.iter().for_each(|task| *groups.entry(&task.meta_task).or_default() += 1);
        let expected = [
            ("I-CLS", 10),
            ("I-QA", 10),
            ("I-RET", 12),
            ("I-VG", 4),
            ("V-CLS", 5),
            ("V-MRET", 3),
            ("V-QA", 5),
            ("V-RET", 5),
            ("VD-OOD", 4),
            ("VD-Vidore-V1", 10),
            ("VD-Vidore-V2", 4),
            ("VD-VisRAG", 6),
        ];
        assert_eq!(groups.into_iter().collect::<Vec<_>>(), expected);
        let count = |of: fn(&PublishedTask) -> bool| all.iter().filter(|task| of(task)).count();
        assert_eq!(count(|task| task.distribution == Some(Distribution::In)), 20);
        assert_eq!(count(|task| task.distribution == Some(Distribution::Out)), 16);
        assert_eq!(count(|task| task.metric == "ndcg@5"), 24);
        assert_eq!(tasks(Suite::MmebV1).len(), 36);
        assert_eq!(tasks(Suite::Vidore).len(), 14);
        assert_eq!(tasks(Suite::VidoreV2English).len(), 4);
    }
}
