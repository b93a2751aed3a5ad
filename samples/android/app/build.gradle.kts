plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "kit.app"
    compileSdk = 36

    defaultConfig {
        applicationId = "kit.app"
        minSdk = 24 // of LiteRT 2.3
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
    }

    // A model is mapped into memory from the package, which a compressed file cannot be.
    androidResources { noCompress += "tflite" }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

kotlin { jvmToolchain(17) }

dependencies {
    implementation("com.google.ai.edge.litert:litert:2.3.0")
    implementation("com.google.mediapipe:tasks-text:1.0.0")
}
