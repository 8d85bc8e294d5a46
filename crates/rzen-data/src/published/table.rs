//! The 78 sets of MMEB-V2, and three that its configuration has besides, as its reference runner describes them.

use Count::{About, Exact, Open};
use Layout::{Images, Moments, Options, Pages, Seeker, VideoClass, VideoSearch};

use super::annotations::Hub;
use super::images::ImageLayout::{self, Captions, Edits, Labels, Questions, Search};
use super::names::{Distribution, Modality};
use super::questions::Choice;
use super::videos::{Caption, LabelList};

/// One set.
pub(crate) struct Entry {
    /// The key in score files.
    pub name: &'static str,
    /// The group that is averaged first.
    pub meta_task: &'static str,
    pub distribution: Option<Distribution>,
    pub queries: Count,
    /// Of the pool, or where each query has its own list, of that.
    pub candidates: Count,
    pub layout: Layout,
}

/// How sure a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// The published scores or the data card say so.
    Exact(usize),
    /// Others who looked at the data say so.
    About(usize),
    /// Nobody says.
    Open,
}

impl Count {
    pub fn number(self) -> Option<usize> {
        match self {
            Exact(number) | About(number) => Some(number),
            Open => None,
        }
    }
}

/// How a set lies on the disk.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    /// A config of MMEB's image annotations; pictures in `image-tasks`.
    Images(ImageLayout),
    /// Clips to be named with one of a list of labels: folder of frames, labels, question.
    VideoClass(Hub, &'static str, LabelList, &'static str),
    /// Clips and questions with options: folder of frames, layout.
    Options(Hub, &'static str, Choice),
    /// Captions and the clips they tell of: folder of frames, columns, instruction.
    VideoSearch(Hub, &'static str, Caption, &'static str),
    /// Moments of long videos, whose clips are folders: folder of frames.
    Moments(Hub, &'static str),
    /// Moments whose clips the annotations list: folder of frames.
    Seeker(Hub, &'static str),
    /// Queries and pages.
    Pages(PageSet),
}

/// Queries, pages and judgements in BEIR's layout.
#[derive(Clone, Copy)]
pub(crate) struct PageSet {
    pub hub: Hub,
    pub folder: &'static str,
    /// Queries of other languages are left out.
    pub language: Option<&'static str>,
    pub naming: Naming,
}

/// How a page's file is named after its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// The id and `.png`.
    Png,
    /// Ids that are file names, cut to 50 characters and told apart by a hash.
    Hashed,
}

impl Entry {
    pub fn modality(&self) -> Modality {
        match self.layout {
            Images(_) => Modality::Image,
            VideoClass(..) | Options(..) | VideoSearch(..) | Moments(..) | Seeker(..) => Modality::Video,
            Pages(_) => Modality::VisualDocument,
        }
    }

    /// The kind of work, by the paper's names where it has one.
    pub fn task(&self) -> &'static str {
        match self.meta_task {
            "I-CLS" => "image_classification",
            "I-QA" => "image_qa",
            "I-RET" => "image_retrieval",
            "I-VG" => "image_grounding",
            "V-CLS" => "video_classification",
            "V-QA" => "video_qa",
            "V-RET" => "video_retrieval",
            "V-MRET" => "moment_retrieval",
            _ => "document_retrieval",
        }
    }

    pub fn metric(&self) -> &'static str {
        match self.layout {
            Pages(_) => "ndcg@5",
            _ => "hit_rate@1",
        }
    }
}

const IN: Option<Distribution> = Some(Distribution::In);
const OUT: Option<Distribution> = Some(Distribution::Out);

const fn image(
    name: &'static str,
    meta_task: &'static str,
    distribution: Option<Distribution>,
    candidates: Count,
    layout: ImageLayout,
) -> Entry {
    Entry { name, meta_task, distribution, queries: Exact(1000), candidates, layout: Images(layout) }
}

const fn video(
    name: &'static str,
    meta_task: &'static str,
    queries: usize,
    candidates: Count,
    layout: Layout,
) -> Entry {
    Entry { name, meta_task, distribution: None, queries: Exact(queries), candidates, layout }
}

const fn pages(
    name: &'static str,
    meta_task: &'static str,
    repository: &'static str,
    folder: &'static str,
    [queries, pages]: [usize; 2],
) -> Entry {
    let set = PageSet { hub: Hub::of(repository), folder, language: None, naming: Naming::Png };
    let (queries, candidates) = (Exact(queries), Exact(pages));
    Entry { name, meta_task, distribution: None, queries, candidates, layout: Pages(set) }
}

/// Of ViDoRe V2 the queries in English.
const fn english(
    name: &'static str,
    repository: &'static str,
    folder: &'static str,
    [queries, pages]: [usize; 2],
) -> Entry {
    let language = Some("english");
    let set = PageSet { hub: Hub::of(repository), folder, language, naming: Naming::Png };
    let (queries, candidates) = (About(queries), Exact(pages));
    Entry { name, meta_task: "VD-Vidore-V2", distribution: None, queries, candidates, layout: Pages(set) }
}

const fn visrag(
    name: &'static str,
    repository: &'static str,
    folder: &'static str,
    [queries, pages]: [usize; 2],
) -> Entry {
    let set =
        PageSet { hub: Hub::of(repository).split("train"), folder, language: None, naming: Naming::Hashed };
    let (queries, candidates) = (Exact(queries), Exact(pages));
    Entry { name, meta_task: "VD-VisRAG", distribution: None, queries, candidates, layout: Pages(set) }
}

/// The 36 image sets: 20 of MMEB's training sources, 16 of others.
pub(crate) const IMAGE: [Entry; 36] = [
    image("ImageNet-1K", "I-CLS", IN, About(1000), Labels),
    image("N24News", "I-CLS", IN, About(24), Labels),
    image("HatefulMemes", "I-CLS", IN, About(2), Labels),
    image("VOC2007", "I-CLS", IN, About(20), Labels),
    image("SUN397", "I-CLS", IN, About(397), Labels),
    image("Place365", "I-CLS", OUT, About(365), Labels),
    image("ImageNet-A", "I-CLS", OUT, About(1000), Labels),
    image("ImageNet-R", "I-CLS", OUT, About(200), Labels),
    // 113 in an audit of the published file, 313 in the original data.
    image("ObjectNet", "I-CLS", OUT, About(113), Labels),
    image("Country211", "I-CLS", OUT, About(211), Labels),
    image("OK-VQA", "I-QA", IN, About(1000), Questions),
    image("A-OKVQA", "I-QA", IN, About(894), Questions),
    image("DocVQA", "I-QA", IN, About(1000), Questions),
    image("InfographicsVQA", "I-QA", IN, About(1000), Questions),
    image("ChartQA", "I-QA", IN, About(1000), Questions),
    image("Visual7W", "I-QA", IN, About(1000), Questions),
    image("ScienceQA", "I-QA", OUT, About(736), Questions),
    image("VizWiz", "I-QA", OUT, About(1000), Questions),
    image("GQA", "I-QA", OUT, About(1000), Questions),
    image("TextVQA", "I-QA", OUT, About(1000), Questions),
    image("VisDial", "I-RET", IN, About(1000), Search),
    image("CIRR", "I-RET", IN, About(1000), Edits),
    image("VisualNews_t2i", "I-RET", IN, About(1000), Search),
    image("VisualNews_i2t", "I-RET", IN, About(1000), Captions),
    image("MSCOCO_t2i", "I-RET", IN, About(1000), Search),
    image("MSCOCO_i2t", "I-RET", IN, About(1000), Captions),
    image("NIGHTS", "I-RET", IN, About(1000), Edits),
    image("WebQA", "I-RET", IN, About(1000), Search),
    image("FashionIQ", "I-RET", OUT, About(1000), Edits),
    image("Wiki-SS-NQ", "I-RET", OUT, About(1000), Search),
    image("OVEN", "I-RET", OUT, About(1000), Edits),
    image("EDIS", "I-RET", OUT, About(1000), Search),
    image("MSCOCO", "I-VG", IN, About(1000), Edits),
    image("RefCOCO", "I-VG", OUT, About(1000), Edits),
    image("RefCOCO-Matching", "I-VG", OUT, About(1000), Edits),
    image("Visual7W-Pointing", "I-VG", OUT, About(1000), Edits),
];

/// The 18 video sets.
#[rustfmt::skip]
pub(crate) const VIDEO: [Entry; 18] = [
    video("K700", "V-CLS", 1000, Exact(700), VideoClass(Hub::of("VLM2Vec/Kinetics-700"), "video_cls/K700", LabelList::Kinetics700,
        "Recognize the category of the video content.")),
    video("SmthSmthV2", "V-CLS", 1000, About(174), VideoClass(Hub::of("VLM2Vec/SmthSmthV2"), "video_cls/SSv2", LabelList::OfEachRow,
        "What actions or object interactions are being performed by the person in the video?")),
    video("HMDB51", "V-CLS", 1000, Exact(51), VideoClass(Hub::of("VLM2Vec/HMDB51"), "video_cls/HMDB51", LabelList::Hmdb51,
        "What actions or objects interactions are the person in the video doing?")),
    video("UCF101", "V-CLS", 1000, Exact(101), VideoClass(Hub::of("VLM2Vec/UCF101"), "video_cls/UCF101", LabelList::Ucf101,
        "What activities or sports are being performed by the person in the video?")),
    // The space at the end is the reference's.
    video("Breakfast", "V-CLS", 433, Exact(10), VideoClass(Hub::of("VLM2Vec/Breakfast"), "video_cls/Breakfast", LabelList::Breakfast,
        "Recognize the breakfast type that the person is cooking in the video. ")),
    video("MVBench", "V-QA", 4000, Open, Options(Hub::of("VLM2Vec/MVBench").split("train"), "video_qa/MVBench", Choice::MvBench)),
    video("Video-MME", "V-QA", 2700, About(4), Options(Hub::of("VLM2Vec/Video-MME"), "video_qa/Video-MME", Choice::VideoMme)),
    video("NExTQA", "V-QA", 8564, About(5), Options(Hub::of("VLM2Vec/NExTQA").config("MC"), "video_qa/NExTQA", Choice::NextQa)),
    video("EgoSchema", "V-QA", 500, About(5), Options(Hub::of("VLM2Vec/EgoSchema").config("Subset"), "video_qa/EgoSchema", Choice::EgoSchema)),
    video("ActivityNetQA", "V-QA", 1000, Exact(2), Options(Hub::of("VLM2Vec/ActivityNetQA"), "video_qa/ActivityNetQA", Choice::ActivityNetQa)),
    video("DiDeMo", "V-RET", 1004, Exact(1004), VideoSearch(Hub::of("VLM2Vec/DiDeMo"), "video_ret/DiDeMo", Caption::DIDEMO,
        "Find a video that includes the following described scenes:")),
    video("MSR-VTT", "V-RET", 1000, Exact(1000), VideoSearch(Hub::of("VLM2Vec/MSR-VTT").config("test_1k"), "video_ret/MSR-VTT", Caption::MSRVTT,
        "Find a video that contains the following visual content:")),
    video("MSVD", "V-RET", 670, Exact(670), VideoSearch(Hub::of("VLM2Vec/MSVD"), "video_ret/MSVD", Caption::MSVD,
        "Find the video snippet that corresponds to the given summary:")),
    video("VATEX", "V-RET", 4478, Exact(4478), VideoSearch(Hub::of("VLM2Vec/VATEX"), "video_ret/VATEX", Caption::VATEX,
        "Select a video that fits the description provided:")),
    video("YouCook2", "V-RET", 3179, Exact(3179), VideoSearch(Hub::of("lmms-lab/YouCook2").split("val"), "video_ret/YouCook2", Caption::YOUCOOK2,
        "Find a video that demonstrates the following action while making a recipe:")),
    video("QVHighlight", "V-MRET", 1083, Open, Moments(Hub::of("VLM2Vec/QVHighlight"), "video_mret/QVHighlight")),
    video("Charades-STA", "V-MRET", 727, Open, Moments(Hub::of("VLM2Vec/Charades-STA"), "video_mret/Charades_STA")),
    video("MomentSeeker", "V-MRET", 1602, Open, Seeker(Hub::of("VLM2Vec/MomentSeeker"), "video_mret/MomentSeeker")),
];

/// The 24 sets of visual documents.
#[rustfmt::skip]
pub(crate) const DOCUMENTS: [Entry; 24] = [
    pages("ViDoRe_arxivqa", "VD-Vidore-V1", "vidore/arxivqa_test_subsampled_beir", "ViDoRe_arxivqa", [500, 500]),
    pages("ViDoRe_docvqa", "VD-Vidore-V1", "vidore/docvqa_test_subsampled_beir", "ViDoRe_docvqa", [451, 500]),
    pages("ViDoRe_infovqa", "VD-Vidore-V1", "vidore/infovqa_test_subsampled_beir", "ViDoRe_infovqa", [494, 500]),
    pages("ViDoRe_tabfquad", "VD-Vidore-V1", "vidore/tabfquad_test_subsampled_beir", "ViDoRe_tabfquad", [280, 70]),
    pages("ViDoRe_tatdqa", "VD-Vidore-V1", "vidore/tatdqa_test_beir", "ViDoRe_tatdqa", [1646, 277]),
    pages("ViDoRe_shiftproject", "VD-Vidore-V1", "vidore/shiftproject_test_beir", "ViDoRe_shiftproject", [100, 1000]),
    pages("ViDoRe_syntheticDocQA_artificial_intelligence", "VD-Vidore-V1", "vidore/syntheticDocQA_artificial_intelligence_test_beir", "ViDoRe_syntheticDocQA_artificial_intelligence", [100, 968]),
    pages("ViDoRe_syntheticDocQA_energy", "VD-Vidore-V1", "vidore/syntheticDocQA_energy_test_beir", "ViDoRe_syntheticDocQA_energy", [100, 977]),
    pages("ViDoRe_syntheticDocQA_government_reports", "VD-Vidore-V1", "vidore/syntheticDocQA_government_reports_test_beir", "ViDoRe_syntheticDocQA_government_reports", [100, 972]),
    pages("ViDoRe_syntheticDocQA_healthcare_industry", "VD-Vidore-V1", "vidore/syntheticDocQA_healthcare_industry_test_beir", "ViDoRe_syntheticDocQA_healthcare_industry", [100, 965]),
    pages("ViDoRe_esg_reports_human_labeled_v2", "VD-Vidore-V2", "vidore/esg_reports_human_labeled_v2", "esg_reports_human_labeled_v2", [52, 1538]),
    pages("ViDoRe_biomedical_lectures_v2_multilingual", "VD-Vidore-V2", "vidore/biomedical_lectures_v2", "biomedical_lectures_v2_multilingual", [640, 1016]),
    pages("ViDoRe_economics_reports_v2_multilingual", "VD-Vidore-V2", "vidore/economics_reports_v2", "economics_reports_v2_multilingual", [232, 452]),
    pages("ViDoRe_esg_reports_v2_multilingual", "VD-Vidore-V2", "vidore/esg_reports_v2", "esg_reports_v2_multilingual", [228, 1538]),
    visrag("VisRAG_ArxivQA", "openbmb/VisRAG-Ret-Test-ArxivQA", "VisRAG_ArxivQA", [816, 8066]),
    visrag("VisRAG_ChartQA", "openbmb/VisRAG-Ret-Test-ChartQA", "VisRAG_ChartQA", [63, 500]),
    visrag("VisRAG_MP-DocVQA", "openbmb/VisRAG-Ret-Test-MP-DocVQA", "VisRAG_MP-DocVQA", [591, 741]),
    visrag("VisRAG_SlideVQA", "openbmb/VisRAG-Ret-Test-SlideVQA", "VisRAG_SlideVQA", [556, 1284]),
    visrag("VisRAG_InfoVQA", "openbmb/VisRAG-Ret-Test-InfoVQA", "VisRAG_InfoVQA", [718, 459]),
    visrag("VisRAG_PlotQA", "openbmb/VisRAG-Ret-Test-PlotQA", "VisRAG_PlotQA", [863, 9593]),
    pages("ViDoSeek-page", "VD-OOD", "VLM2Vec/ViDoSeek-page-fixed", "ViDoSeek-page", [1142, 5349]),
    pages("ViDoSeek-doc", "VD-OOD", "VLM2Vec/ViDoSeek", "ViDoSeek-doc", [1142, 5349]),
    pages("MMLongBench-page", "VD-OOD", "VLM2Vec/MMLongBench-page-fixed", "MMLongBench-page", [838, 6492]),
    pages("MMLongBench-doc", "VD-OOD", "VLM2Vec/MMLongBench-doc", "MMLongBench-doc", [838, 6492]),
];

/// The three sets that MMEB-V2's configuration has besides the 78.
#[rustfmt::skip]
pub(crate) const ENGLISH: [Entry; 3] = [
    english("ViDoRe_biomedical_lectures_v2", "vidore/biomedical_lectures_v2", "biomedical_lectures_v2", [160, 1016]),
    english("ViDoRe_economics_reports_v2", "vidore/economics_reports_v2", "economics_reports_v2", [58, 452]),
    english("ViDoRe_esg_reports_v2", "vidore/esg_reports_v2", "esg_reports_v2", [57, 1538]),
];
