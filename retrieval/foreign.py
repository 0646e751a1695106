"""Queries that chest radiograph reports hold no precedent for: written for the evaluation, taken from nowhere.

`SEEN` were looked at when it was decided what counts as a precedent; `UNSEEN` were written afterwards, and only asked.
"""

from __future__ import annotations

SEEN: tuple[tuple[str, tuple[str, ...]], ...] = (
    # CT and ultrasound of the abdomen and pelvis
    ("Right lower quadrant pain.", ("Appendicitis", "Periappendiceal fat stranding")),
    ("Painless jaundice.", ("Dilated common bile duct", "Mass in the head of the pancreas")),
    ("Flank pain, hematuria.", ("Ureteral calculus/left", "Hydronephrosis/left")),
    ("Hepatitis C, surveillance.", ("Arterially enhancing lesion with washout in hepatic segment 8",)),
    ("Elevated liver enzymes.", ("Hepatic steatosis", "Hepatomegaly")),
    ("Epigastric pain, raised lipase.", ("Acute pancreatitis", "Peripancreatic fluid")),
    ("Left lower quadrant pain and fever.", ("Sigmoid diverticulitis",)),
    ("Blood in stool, weight loss.", ("Annular mass of the sigmoid colon",)),
    ("Incidental adrenal lesion.", ("Adrenal adenoma/left",)),
    ("Abdominal distension, vomiting.", ("Small bowel obstruction with transition point in the ileum",)),
    ("Biliary colic.", ("Gallstones", "Gallbladder wall thickening")),
    ("Renal mass on ultrasound.", ("Enhancing renal mass/right", "Renal vein thrombosis")),
    ("Crohn disease.", ("Mural thickening of the terminal ileum", "Fistula to the bladder")),
    ("Pelvic pain.", ("Ovarian torsion/right",)),
    ("Heavy menstrual bleeding.", ("Uterine leiomyoma",)),
    ("Raised PSA.", ("Lesion of the peripheral zone of the prostate, PI-RADS 5",)),
    ("Trauma to the abdomen.", ("Splenic laceration", "Hemoperitoneum")),
    # MR and CT of the head and neck
    ("Sudden right-sided weakness.", ("Restricted diffusion in the left middle cerebral artery territory",)),
    ("First seizure.", ("Ring-enhancing lesion of the left frontal lobe", "Vasogenic edema")),
    ("Optic neuritis.", ("Periventricular white matter lesions", "Dawson fingers")),
    ("Thunderclap headache.", ("Subarachnoid hemorrhage", "Aneurysm of the anterior communicating artery")),
    ("Fall, on anticoagulants.", ("Subdural hematoma/right", "Midline shift of the brain")),
    ("Memory loss.", ("Hippocampal atrophy",)),
    ("Unilateral hearing loss.", ("Vestibular schwannoma/left",)),
    ("Galactorrhea.", ("Pituitary microadenoma",)),
    ("Headache, papilledema.", ("Hydrocephalus", "Colloid cyst of the third ventricle")),
    ("Neck swelling.", ("Multinodular goiter",)),
    ("Nasal obstruction.", ("Maxillary sinus polyp/right", "Deviated nasal septum")),
    # Spine and joints
    ("Sciatica.", ("Disc extrusion L5-S1", "Compression of the S1 nerve root/left")),
    ("Neck pain, numb hands.", ("Cord signal change at C5-C6", "Myelopathy")),
    ("Knee injury at football.", ("Rupture of the anterior cruciate ligament", "Tear of the medial meniscus")),
    ("Shoulder pain on abduction.", ("Full-thickness tear of the supraspinatus tendon",)),
    ("Ankle sprain.", ("Talar osteochondral lesion", "Rupture of the anterior talofibular ligament")),
    ("Hip pain, steroids.", ("Avascular necrosis of the femoral head/right",)),
    ("Wrist pain after a fall.", ("Scaphoid fracture", "Bone marrow edema of the carpus")),
    ("Heel pain.", ("Plantar fasciitis",)),
    # Breast, vessels, obstetrics, teeth, eye
    ("Screening mammogram.", ("Cluster of pleomorphic microcalcifications in the upper outer quadrant",)),
    ("Palpable lump in the breast.", ("Spiculated breast mass/left, BI-RADS 5",)),
    ("Leg swelling after a flight.", ("Deep vein thrombosis of the popliteal vein/left",)),
    ("Claudication.", ("Occlusion of the superficial femoral artery/right",)),
    ("Pregnancy, 20 weeks.", ("Placenta previa",)),
    ("First-trimester bleeding.", ("Intrauterine gestational sac without heartbeat",)),
    ("Toothache.", ("Periapical abscess of the lower molar",)),
    ("Flashes of light.", ("Retinal detachment/left",)),
)

UNSEEN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Dysphagia, barium swallow.", ("Zenker diverticulum",)),
    ("Loin pain.", ("Emphysematous pyelonephritis/right",)),
    ("Cirrhosis.", ("Esophageal varices", "Ascites", "Splenomegaly")),
    ("Night sweats, weight loss.", ("Retroperitoneal mass encasing the aorta",)),
    ("Rectal bleeding.", ("Rectal tumour with extramural vascular invasion",)),
    ("Acute scrotum.", ("Absent flow in the left testis",)),
    ("Infertility.", ("Blocked fallopian tubes/bilateral",)),
    ("Ataxia.", ("Cerebellar infarct/left",)),
    ("Meningism.", ("Leptomeningeal enhancement",)),
    ("Facial pain.", ("Neurovascular contact of the trigeminal nerve/right",)),
    ("Diplopia.", ("Cavernous sinus lesion/left",)),
    ("Head injury.", ("Epidural hematoma/left", "Skull fracture/temporal")),
    ("Lump in the neck.", ("Branchial cleft cyst/right",)),
    ("Jaw clicking.", ("Anterior displacement of the temporomandibular disc",)),
    ("Elbow pain.", ("Common extensor tendinopathy",)),
    ("Cauda equina symptoms.", ("Central canal stenosis L4-L5",)),
    ("Big toe swelling.", ("Erosions of the first metatarsophalangeal joint", "Tophus")),
    ("Hand stiffness.", ("Synovitis of the metacarpophalangeal joints",)),
    ("Varicose veins.", ("Incompetence of the saphenofemoral junction/left",)),
    ("Growth scan.", ("Oligohydramnios", "Fetal growth restriction")),
)
