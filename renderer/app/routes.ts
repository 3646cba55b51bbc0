import { createRouter, createWebHashHistory, type Router } from 'vue-router';

declare module 'vue-router' {
  interface RouteMeta {
    section: 'home' | 'datasets' | 'models' | 'train' | 'runs' | 'chat' | 'jobs' | 'routing' | 'settings';
    title: string;
    /** Another address is another instance: the screen holds what belongs to one subject alone. */
    oneSubject?: boolean;
  }
}

/** Addresses live in the fragment, so that the page works under any path and under the app's own protocol. */
export function createRoutes(): Router {
  return createRouter({
    history: createWebHashHistory(),
    routes: [
      {
        path: '/',
        component: () => import('../features/home/HomeScreen.vue'),
        meta: { section: 'home', title: 'Home' },
      },
      {
        path: '/datasets',
        component: () => import('../features/datasets/DatasetsScreen.vue'),
        meta: { section: 'datasets', title: 'Datasets' },
      },
      {
        path: '/datasets/mix',
        component: () => import('../features/datasets/MixScreen.vue'),
        meta: { section: 'datasets', title: 'New mix' },
      },
      {
        path: '/datasets/sources/:id',
        component: () => import('../features/datasets/DatasetScreen.vue'),
        meta: { section: 'datasets', title: 'Source', oneSubject: true },
        props: ({ params }) => ({ kind: 'source', id: params['id'] }),
      },
      {
        path: '/datasets/mixes/:id',
        component: () => import('../features/datasets/DatasetScreen.vue'),
        meta: { section: 'datasets', title: 'Mix', oneSubject: true },
        props: ({ params }) => ({ kind: 'mix', id: params['id'] }),
      },
      {
        path: '/models',
        component: () => import('../features/models/ModelsScreen.vue'),
        meta: { section: 'models', title: 'Models' },
      },
      {
        path: '/models/:id',
        component: () => import('../features/models/ModelScreen.vue'),
        meta: { section: 'models', title: 'Model', oneSubject: true },
        props: true,
      },
      {
        path: '/exports/new',
        component: () => import('../features/models/NewExportScreen.vue'),
        meta: { section: 'models', title: 'New export' },
      },
      {
        path: '/exports/:id',
        component: () => import('../features/models/ExportScreen.vue'),
        meta: { section: 'models', title: 'Export', oneSubject: true },
        props: true,
      },
      {
        path: '/train',
        component: () => import('../features/train/TrainScreen.vue'),
        meta: { section: 'train', title: 'Train' },
      },
      {
        path: '/experiments',
        component: () => import('../features/experiments/ExperimentsScreen.vue'),
        meta: { section: 'runs', title: 'Experiments' },
      },
      { path: '/runs', redirect: '/experiments' },
      {
        path: '/runs/compare/:ids',
        redirect: ({ params }) => `/experiments/compare/${String(params['ids'])}`,
      },
      {
        path: '/experiments/compare/:ids',
        component: () => import('../features/experiments/CompareScreen.vue'),
        meta: { section: 'runs', title: 'Compare runs' },
        props: true,
      },
      {
        path: '/runs/:id',
        component: () => import('../features/run/RunScreen.vue'),
        meta: { section: 'runs', title: 'Run', oneSubject: true },
        props: true,
      },
      {
        path: '/chat/:id?',
        component: () => import('../features/chat/ChatScreen.vue'),
        meta: { section: 'chat', title: 'Chat' },
        // An absent parameter arrives as an empty string.
        props: ({ params }) => (params['id'] ? { id: params['id'] } : {}),
      },
      {
        path: '/routing',
        component: () => import('../features/routing/RoutingScreen.vue'),
        meta: { section: 'routing', title: 'Routing' },
      },
      {
        path: '/jobs',
        component: () => import('../features/jobs/JobsScreen.vue'),
        meta: { section: 'jobs', title: 'Jobs' },
      },
      {
        path: '/settings',
        component: () => import('../features/settings/SettingsScreen.vue'),
        meta: { section: 'settings', title: 'Settings' },
      },
      { path: '/:rest(.*)*', redirect: '/' },
    ],
  });
}
