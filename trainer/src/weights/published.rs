//! The addresses of published weights.

/// A published weights file, on the server of its authors.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// Name of the model, as its authors use it.
    pub name: &'static str,
    /// Description.
    pub about: &'static str,
    /// Address.
    pub url: &'static str,
    /// SHA-256 in hexadecimal if it is known, otherwise empty.
    pub sha256: &'static str,
}

impl Published {
    /// The file name in the address.
    pub fn file_name(&self) -> &'static str {
        self.url.rsplit('/').next().unwrap_or(self.url)
    }
}

/// The addresses of OpenAI contain the hash. The authors of DINOv2 publish none; the two here are those that users have reported.
pub const PUBLISHED: &[Published] = &[
    Published {
        name: "dinov2_vits14",
        about: "DINOv2 ViT-S/14, 22 M parameters",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
        sha256: "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    },
    Published {
        name: "dinov2_vitb14",
        about: "DINOv2 ViT-B/14, 86 M parameters",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
        sha256: "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    },
    Published {
        name: "dinov2_vitl14",
        about: "DINOv2 ViT-L/14, 300 M parameters",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        sha256: "",
    },
    Published {
        name: "dinov2_vitg14",
        about: "DINOv2 ViT-g/14, 1.1 G parameters",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitg14/dinov2_vitg14_pretrain.pth",
        sha256: "",
    },
    Published {
        name: "dinov2_vits14_reg",
        about: "DINOv2 ViT-S/14 with 4 registers",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
        sha256: "",
    },
    Published {
        name: "dinov2_vitb14_reg",
        about: "DINOv2 ViT-B/14 with 4 registers",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth",
        sha256: "",
    },
    Published {
        name: "dinov2_vitl14_reg",
        about: "DINOv2 ViT-L/14 with 4 registers",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth",
        sha256: "",
    },
    Published {
        name: "dinov2_vitg14_reg",
        about: "DINOv2 ViT-g/14 with 4 registers",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitg14/dinov2_vitg14_reg4_pretrain.pth",
        sha256: "",
    },
    Published {
        name: "clip_vitb32",
        about: "OpenAI CLIP ViT-B/32",
        url: "https://openaipublic.azureedge.net/clip/models/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
        sha256: "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    },
    Published {
        name: "clip_vitb16",
        about: "OpenAI CLIP ViT-B/16",
        url: "https://openaipublic.azureedge.net/clip/models/5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
        sha256: "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    },
    Published {
        name: "clip_vitl14",
        about: "OpenAI CLIP ViT-L/14",
        url: "https://openaipublic.azureedge.net/clip/models/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
        sha256: "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    },
];

/// The entry with this name.
pub fn find(name: &str) -> Option<&'static Published> {
    PUBLISHED.iter().find(|published| published.name == name)
}
