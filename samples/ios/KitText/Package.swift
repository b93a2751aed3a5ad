// swift-tools-version: 5.9

import PackageDescription

let package = Package(
    name: "KitText",
    products: [.library(name: "KitText", targets: ["KitText"])],
    targets: [.target(name: "KitText")]
)
