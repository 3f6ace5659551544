"""What reports call the 14 CheXpert observations, and the words that deny or doubt them: tables to read and to change.

The observations are those of Irvin et al. (AAAI 2019); the phrases are our own. A phrase is words; ``~`` stands for up
to six words in between, ``*`` for any ending of a word, ``a|b`` for either word. Spaces in a phrase also match
hyphens. Case does not matter.
"""

from __future__ import annotations

NO_FINDING, DEVICES = "No Finding", "Support Devices"

# What says that an observation is there, unless a cue around it denies or doubts it.
MENTIONS: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": (
        "mediastin* ~ widen*", "widen* ~ mediastin*", "mediastin* ~ enlarge*", "enlarge* ~ mediastin*",
        "mediastin* ~ prominent", "prominent mediastin*", "prominence of ~ mediastin*", "abnormal mediastin*",
        "cardiomediastin* ~ enlarge*", "enlarge* cardiomediastin*", "mediastinal mass|lymphadenopathy|adenopathy",
    ),
    "Cardiomegaly": (
        "cardiomegaly", "cardiac enlargement", "heart|cardiac ~ enlarge*", "enlarge* ~ heart|cardiac", "megalocardia",
        "enlargement of the heart|cardiac", "heart size ~ increased", "cardiothoracic ratio ~ increased", "large heart",
        "ventricular enlargement|hypertrophy",
    ),
    "Lung Opacity": (
        "opacit*", "opacification*", "infiltrat*", "airspace|interstitial disease|process|disorder|change|changes",
        "air space disease|process", "increased interstitial|lung|bronchovascular markings", "ground glass",
        "interstitial ~ prominen*", "prominen* ~ interstitial", "reticul* ~ pattern|marking|markings",
        "hazy|patchy density|densities", "lung|basilar|airspace density|densities", "honeycombing",
        "fibrosis", "interstitial thickening",
    ),
    "Lung Lesion": (
        "nodul*", "mass", "masses", "lung|pulmonary|cavitary|spiculated lesion*", "neoplasm*", "tumor*", "malignan*",
        "carcinoma*", "metasta*", "cavitation*", "lung cancer", "mass like",
    ),
    "Edema": (
        "edema", "oedema", "pulmonary venous|vascular congestion", "vascular congestion", "congestive failure",
        "heart failure", "cephalization", "kerley", "fluid overload", "volume overload", "chf",
    ),
    "Consolidation": ("consolidat*",),
    "Pneumonia": ("pneumonia*", "bronchopneumonia*", "infection*", "infectious process|etiology", "infective"),
    "Atelectasis": (
        "atelecta*", "volume loss", "loss of ~ volume", "collapse of ~ lobe|lung", "lobar|lung|lobe collapse",
        "collapsed lobe|lung",
    ),
    "Pneumothorax": ("pneumothora*", "hydropneumothora*"),
    "Pleural Effusion": (
        "effusion*", "pleural fluid", "fluid in ~ pleural", "hydrothorax", "hemothorax",
        "blunt* ~ costophrenic|sulcus|sulci|angle", "costophrenic ~ blunt*",
    ),
    "Pleural Other": (
        "pleural ~ thickening", "pleural plaque*", "pleural scar*", "pleural calcification*", "calcified pleura*",
        "apical thickening|cap|capping", "fibrothorax", "pleural mass*",
    ),
    "Fracture": ("fractur*", "compression deformit*", "fx", "dislocat*", "wedge deformit*"),
    DEVICES: (
        "endotracheal|tracheostomy|nasogastric|orogastric|enteric|feeding|chest|gastric|ng|et|dobbhoff tube*",
        "catheter*", "central venous line*", "central|jugular|subclavian|ij line|lines",
        "picc", "pacemaker*", "pacer", "aicd", "icd", "defibrillator*",
        "port a cath", "mediport", "chest|infusion port", "sternotomy wire*", "sternal wire*", "cerclage wire*",
        "pacing|pacer lead*",
        "stent*", "valve replacement", "prosthe*", "surgical clip*", "hardware", "spinal rod*", "drain", "drains",
        "arthroplasty", "balloon pump", "swan ganz", "shunt tubing|catheter", "loop recorder", "stimulator*",
    ),
}  # fmt: skip

# What says outright that an observation is not there.
NORMAL: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": (
        "mediastin* ~ normal|unremarkable|intact", "normal ~ mediastin*", "unremarkable ~ mediastin*",
    ),
    "Cardiomegaly": (
        "heart|cardiac ~ normal|unremarkable", "normal heart|cardiac", "normal sized heart",
        "unremarkable ~ heart|cardiac",
        "cardiomediastin* ~ normal|unremarkable", "normal ~ cardiomediastin*", "unremarkable cardiomediastin*",
    ),
    "Lung Opacity": ("lungs|lung ~ clear", "clear ~ lungs|lung", "airspaces ~ clear"),
    "Pleural Effusion": ("costophrenic ~ sharp|clear|preserved", "pleural spaces ~ clear"),
    "Fracture": ("bony|osseous|bones|ribs ~ intact", "intact ~ bony|osseous|bones|ribs"),
}  # fmt: skip

# What is doubtful as it stands.
BORDERLINE: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": ("borderline ~ mediastin*",),
    "Cardiomegaly": (
        "heart|cardiac ~ upper limit*|borderline", "borderline ~ heart|cardiac|cardiomegaly", "heart ~ top normal",
        "upper limits ~ heart|cardiac", "mildly|slightly prominent ~ heart|cardiac", "heart|cardiac ~ prominent",
    ),
}  # fmt: skip

# Said of something else; a mention inside these words does not count.
NOT_MEANT = (
    "history of ~ pneumonia|fracture|cancer|carcinoma|malignancy|infection|failure", "body mass", "mass effect",
    "nodular ~ diaphragm", "breast mass*", "cardiac valve*", "adrenal mass*", "prior fracture site", "mass index",
    "soft tissue density", "removed ~ tube|catheter|line",
    "removal of ~ tube*|catheter*|line*|picc|pacemaker*|lead*|drain*|hardware|stent*|wire*",
    "tube*|catheter*|line*|picc|pacemaker*|lead*|drain*|hardware|stent*|wire* removal",
    "granulomatous infection*", "limit* ~ evaluation for|of ~ effusion|pneumothorax|pneumonia",
    "evaluation for|of ~ effusion|pneumothorax|pneumonia ~ limited",
)  # fmt: skip

# What denies nothing; but not where a mention is among its words, as in "no fracture or acute change".
NOT_A_DENIAL = (
    "no|without ~ change*", "not ~ change*", "no ~ increase*", "no ~ progression", "no longer ~ enlarging", "not only",
    "no ~ improvement", "no prior*|previous|comparison*", "no ~ decrease*", "not significantly different",
    "no ~ worsening of|in", "not ~ resolved|cleared", "near|nearly|almost|partial|partially|incomplete|incompletely ~ "
    "resolved|cleared|resolution", "not previously", "not ~ on ~ prior|previous", "not ~ previously",
    "not seen|present|noted|identified|visible|evident before", "no|without doubt",
)  # fmt: skip

# What denies something of a device, and so not the device, though it may be among the words.
NOT_A_DENIAL_OF_DEVICES = (
    "no|without ~ hardware|device*|catheter*|line*|tube*|lead*|wire*|stent*|pacemaker*|prosthe* "
    "complication*|failure|fracture*|kinking|loosening|malfunction|malposition|migration",
    "no|without ~ hardware|device|catheter|line|tube related|associated complication*",
    "tip|tips|end ~ ~ not ~ seen|visualized|visualised|identified|demonstrated|included|evident|visible",
)  # fmt: skip

# Between a cue and a device: the cue is about what is before, and the device is there.
DEVICE_IS_THERE = (
    "after", "following", "status post", "s p",
    "complication*|failure|kinking|loosening|malfunction|malposition|migration of|from|in|involving|related",
)  # fmt: skip

# Before a mention, down to the end of its clause.
DENIES_AFTER = (
    "no", "not", "nor", "without", "free of", "free from", "clear of", "negative for", "absence of", "absent",
    "never", "neither", "nil", "doubt", "low likelihood|probability of",
    "lack of", "lacks", "lacking", "resolution of", "resolved", "rather than", "no longer",
    "exclude|excludes|excluding", "ruled out", "no|without ~ suggest*|indicate|represent", "none of", "cleared",
)  # fmt: skip
DOUBTS_AFTER = (
    "cannot|can't|not|difficult|unable ~ exclude*|excluding", "cannot|can't|not|difficult to ~ rule out", "rule out",
    "to exclude", "possib*", "probabl*", "likely", "may", "might", "could", "suspicious for", "suspicion of|for",
    "suspected", "suspect", "concern* for", "question", "question* of", "questionable", "r o", "suggest*", "equivocal",
    "worrisome for", "versus", "vs", "evaluate for", "consider", "borderline", "presum*", "appears to be",
    "compatible with", "consistent with ~ versus", "differential ~ include*", "potential*", "perhaps",
    "not entirely excluded",
)  # fmt: skip

# After a mention, back to the start of its clause.
DENIES_BEFORE = (
    "not ~ seen|identified|evident|present|visualized|visualised|noted|demonstrated|appreciated|detected",
    "not observed|apparent",
    "is|are|was|were|been absent", "has|have|is|are|had|now ~ resolved", "has|have|is|are|had|now ~ cleared",
    "is|are|was|been excluded", "is|are|was|been ruled out", "is|are|was|were negative",
    "no longer ~ seen|identified|evident|present|visualized|demonstrated|noted|appreciated|detected|visible",
    "disappeared", "not enlarged|widened", "is|are|was|were|been removed",
    "is|are|was|were|be|appears|seems|felt|thought unlikely|doubtful",
)  # fmt: skip
DOUBTS_BEFORE = (
    "cannot|can't|not ~ excluded", "cannot|can't|not ~ ruled out", "is|are|remains|be possible",
    "is|are|was|be suspected|questioned|considered", "not ~ entirely excluded", "difficult to exclude",
    "in the differential", "is|are|remains a|another consideration|possibility",
    "could|may|might|can be missed|overlooked", "versus", "vs",
)  # fmt: skip

# Right after a comma: what a denial before the comma does not reach, as in "no pneumothorax, small effusion"; but not
# where "or" goes on with the list.
STATED_AFTER_COMMA = (
    "a", "very", "small", "tiny", "trace", "slight", "minimal", "minimally", "mildly", "moderate", "moderately",
    "multiple", "old", "remote", "healed", "healing", "chronic", "persistent", "residual", "improving", "resolving",
    "left", "right", "bilateral", "bibasilar", "bibasal", "biapical",
)  # fmt: skip

# "with" inside these ends nothing.
NOT_A_CLAUSE_END = ("consistent|compatible|keeping with", "associated with")

# Where one statement ends and another begins inside a sentence.
CLAUSE_ENDS = (
    "but", "however", "although", "though", "except", "except for", "aside from", "apart from", "other than", "yet",
    "while", "whereas", "which", "with", "and there is|are", "there is|are", "otherwise", "despite",
    "in addition", "besides", "and the", "secondary to", "due to",
)  # fmt: skip
