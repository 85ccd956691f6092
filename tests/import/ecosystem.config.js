const port = 4000 + 100;
console.log('loading');
module.exports = {
  apps: ['a', 'b'].map((name, index) => ({
    name,
    script: `./${name}.js`,
    env: { PORT: port + index, FROM: process.env.IMPORT_TEST },
    filter: (x) => x,
    max_memory_restart: '1G', // said once
  })),
};
